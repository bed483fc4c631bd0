"""``realtime-otel check`` on the real Collector, sidecar and Jaeger: whole, and with each hop broken in turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from realtime_otel_sidecar.checks.probe import SERVICE
from tests.certificates import Authority, replace
from tests.sidecar import Backend, SidecarProcess, only_with
from tests.stack.processes import NOWHERE, Collector, Jaeger, address, start_collector

pytestmark = pytest.mark.stack

NOTHING_PASSES = """
processors:
  filter/stream_records: {log_conditions: ['log.event_name != "no event"']}
"""
Steps = dict[str, dict[str, str]]


@dataclass
class Chain:
    """The running parts."""

    collector: Collector
    sidecar: SidecarProcess
    jaeger: Jaeger

    def check(self, *flags: str, agent: str = "", **environment: str) -> tuple[int, Steps]:
        """Run the command; its exit status and its steps by their names.

        ``agent``: where the agent sends its records, if not to the collector; ``flags`` win over those of this chain.
        """
        own = {"OTEL_EXPORTER_OTLP_ENDPOINT": agent or f"http://{self.collector.otlp_endpoint}"}
        given = {
            "--sidecar": f"127.0.0.1:{self.sidecar.port}",
            "--endpoint": f"http://{self.collector.stitched_endpoint}",
            "--data-dir": str(self.sidecar.data_dir),
            "--timeout": "15",
        }
        command = [*(word for pair in given.items() for word in pair), "--json", *flags]
        run = subprocess.run(
            [sys.executable, "-m", "realtime_otel_sidecar.cli", "check", *command],
            env=os.environ | own | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert run.returncode in (0, 1), run.stderr
        found: list[dict[str, Any]] = json.loads(run.stdout)
        return run.returncode, {each["name"]: each for each in found}


AGENT, SPANS, METRICS = "agent → collector", "sidecar → collector, spans", "sidecar → collector, metrics"


def of(steps: Steps, name: str) -> dict[str, str]:
    """The one step whose name begins so."""
    (found,) = [step for each, step in steps.items() if each.startswith(name)]
    return found


@contextmanager
def running(
    folder: Path,
    jaeger: Jaeger,
    *overlays: Path,
    stitched: str = "",
    traces: str = "",
    forward: str = "",
    flags: Sequence[str] = (),
) -> Iterator[Chain]:
    """A chain; ``stitched`` and ``traces``: where the sidecar and the Collector send spans if not where they should.

    ``forward``: the same of the records that the Collector sends on; ``flags``: of the sidecar.
    """
    listen, way_back = address(), address()
    environment = {"OTELCOL_STITCHED_ENDPOINT": way_back}
    with (
        SidecarProcess(folder, f"http://{stitched or way_back}", "--listen", listen, *flags) as sidecar,
        start_collector(
            folder,
            sidecar_endpoint=forward or listen,
            traces_endpoint=traces or jaeger.otlp_endpoint,
            overlays=overlays,
            environment=environment,
        ) as collector,
    ):
        yield Chain(collector, sidecar, jaeger)


@contextmanager
def secured_receiver(token: str) -> Iterator[str]:
    """The address of a receiver of logs that wants this token: a sidecar is one, too."""
    with TemporaryDirectory() as folder:
        file = replace(Path(folder) / "tokens", token)
        with SidecarProcess(Path(folder), f"http://{NOWHERE}", "--listen-token-file", str(file)) as sidecar:
            yield f"http://127.0.0.1:{sidecar.port}"


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, jaeger: Jaeger) -> Iterator[Chain]:
    with running(tmp_path_factory.mktemp("check"), jaeger) as whole:
        yield whole


def test_a_whole_chain_is_told_to_be_and_its_trace_is_the_probe_s(chain: Chain) -> None:
    status, steps = chain.check("--jaeger", chain.jaeger.query_url)
    assert (status, {step["state"] for step in steps.values()}) == (0, {"ok"}), steps
    assert len(steps) == 5
    trace_id = of(steps, "trace ")["name"].split()[1]
    found = chain.jaeger.trace(trace_id)
    assert sorted(span["operationName"] for span in found["spans"]) == ["realtime_inference", "realtime_session"]
    assert {process["serviceName"] for process in found["processes"].values()} == {SERVICE}
    (session,) = [span for span in found["spans"] if span["operationName"] == "realtime_session"]
    tags = {tag["key"]: tag["value"] for tag in session["tags"]}
    assert tags["openai.realtime.close.reason"] == "session_closed"
    assert (tags["openai.realtime.records.missing"], tags["openai.realtime.ends.inferred"]) == (0, 0)


def test_without_jaeger_the_collectors_acknowledgement_is_looked_for(chain: Chain) -> None:
    status, steps = chain.check()
    assert (status, of(steps, "spans of ")["state"]) == (0, "ok")


def test_from_the_agents_side_only_the_collector_and_jaeger_are_asked(chain: Chain, tmp_path: Path) -> None:
    flags = (
        "--agent-side",
        "--jaeger",
        chain.jaeger.query_url,
        "--data-dir",
        str(tmp_path),
        "--endpoint",
        "http://x:1",
    )
    status, steps = chain.check(*flags)
    assert (status, [step["state"] for step in steps.values()]) == (0, ["ok", "ok"])


def test_a_configured_sampler_that_takes_nothing_is_pointed_out(chain: Chain) -> None:
    status, steps = chain.check("--agent-side", OTEL_TRACES_SAMPLER="always_off")
    assert (status, of(steps, "sampling")["state"]) == (0, "note")


BROKEN_AGENTS = {
    "no name": ("http://nobody.invalid:4317", {}, "nobody.invalid has no address (DNS", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    "nobody listens": (f"http://{NOWHERE}", {}, "nobody listens at 127.0.0.1:9", "Does the collector run"),
    "no address": ("http://[", {}, "it is no address", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    "switched off": ("", {"OTEL_SDK_DISABLED": "true"}, "OTEL_SDK_DISABLED is true", "unset it"),
    "a certificate that is not there": (
        "https://127.0.0.1:9",
        {"OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere.pem"},
        "",
        "OTEL_EXPORTER_OTLP",
    ),
}


@pytest.mark.parametrize(("agent", "environment", "said", "advice"), BROKEN_AGENTS.values(), ids=BROKEN_AGENTS)
def test_what_is_wrong_between_agent_and_collector_is_said_with_what_to_do(
    agent: str, environment: dict[str, str], said: str, advice: str, chain: Chain
) -> None:
    status, steps = chain.check(agent=agent, **environment)
    step = of(steps, AGENT)
    assert (status, step["state"]) == (1, "failed")
    assert said in step["said"]
    assert advice in step["advice"]
    assert of(steps, "the conversation's trace")["state"] == "skipped"
    assert of(steps, SPANS)["state"] == "ok", "the other hops are looked at all the same"


def test_a_port_that_is_something_else_is_told_by_what_it_answers(chain: Chain) -> None:
    _, steps = chain.check(agent=f"http://{chain.jaeger.otlp_endpoint}")
    assert "UNIMPLEMENTED" in of(steps, AGENT)["said"]
    assert "Something else listens there" in of(steps, AGENT)["advice"]
    _, steps = chain.check(agent=chain.collector.otlp_http_url)
    assert "speaks HTTP/1" in of(steps, AGENT)["advice"], steps
    _, steps = chain.check(agent=f"https://{chain.collector.otlp_endpoint}")
    assert "Only one end speaks TLS" in of(steps, AGENT)["advice"], steps


def test_a_sidecar_that_is_away_or_refuses_is_told_from_the_others(chain: Chain, tmp_path: Path) -> None:
    status, steps = chain.check("--sidecar", NOWHERE)
    assert (status, of(steps, "sidecar, ")["state"]) == (1, "failed")
    assert "nobody listens" in of(steps, "sidecar, ")["said"]
    _, steps = chain.check("--sidecar", chain.collector.otlp_endpoint)
    assert "UNIMPLEMENTED" in of(steps, "sidecar, ")["said"]
    with SidecarProcess(tmp_path, f"http://{NOWHERE}", "--disk-reserve-mib", "1048576") as full:
        _, steps = chain.check("--sidecar", f"127.0.0.1:{full.port}")
    assert of(steps, "sidecar, ")["said"] == "NOT_SERVING"
    assert "has no room" in of(steps, "sidecar, ")["advice"]


def test_a_sidecar_that_speaks_tls_is_asked_with_the_files_that_are_given(chain: Chain, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("sidecar", host="127.0.0.1")
    with SidecarProcess(tmp_path, f"http://{NOWHERE}", *pair.flags("listen")) as secured:
        endpoint = f"https://127.0.0.1:{secured.port}"
        _, steps = chain.check("--sidecar", endpoint, "--sidecar-ca-file", str(authority.path))
        assert of(steps, "sidecar, ")["state"] == "ok"
        _, steps = chain.check("--sidecar", endpoint)
        assert "does not trust the other's certificate" in of(steps, "sidecar, ")["advice"]


def test_a_way_back_that_leads_elsewhere_or_wants_a_token_is_told(chain: Chain) -> None:
    _, steps = chain.check("--endpoint", f"http://127.0.0.1:{chain.sidecar.port}")
    assert "UNIMPLEMENTED" in of(steps, SPANS)["said"]
    _, steps = chain.check("--endpoint", f"http://{chain.jaeger.otlp_endpoint}")
    assert of(steps, SPANS)["state"] == "ok"
    assert "with a pipeline for metrics" in of(steps, METRICS)["advice"], "Jaeger takes spans only"
    with Backend() as backend:
        backend.answer = only_with("the-token")
        _, steps = chain.check("--endpoint", backend.endpoint)
    assert "UNAUTHENTICATED" in of(steps, SPANS)["said"]
    assert "endpoint and endpoint_* of the sidecar" in of(steps, SPANS)["advice"]


def test_a_jaeger_that_is_away_is_told_from_a_trace_that_is_missing(chain: Chain) -> None:
    status, steps = chain.check("--jaeger", f"http://{NOWHERE}")
    assert (status, of(steps, "trace ")["state"]) == (1, "failed")
    assert "it does not answer" in of(steps, "trace ")["said"]


def test_a_filter_that_keeps_records_from_the_sidecar_is_found_by_what_the_sidecar_has(
    tmp_path: Path, jaeger: Jaeger
) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(NOTHING_PASSES)
    with running(tmp_path, jaeger, overlay) as chain:
        status, steps = chain.check("--jaeger", jaeger.query_url, "--timeout", "2")
    assert status == 1
    assert "0 of 2 spans came within 2 s; the sidecar has nothing of it" in of(steps, "trace ")["said"]
    assert "does its filter let records with openai.realtime.stream.id through" in of(steps, "trace ")["advice"]


def test_a_collector_that_does_not_reach_the_sidecar_is_told(tmp_path: Path, jaeger: Jaeger) -> None:
    with running(tmp_path, jaeger, forward=NOWHERE) as chain:
        status, steps = chain.check("--timeout", "2")
    assert (status, of(steps, "sidecar, ")["state"]) == (1, "ok")
    assert "the sidecar has nothing of it" in of(steps, "spans of ")["said"]
    assert "has its exporter the sidecar's address" in of(steps, "spans of ")["advice"]


@pytest.mark.parametrize("ratio", ["0.05", "0"])
def test_a_sidecar_that_keeps_few_conversations_keeps_the_probe_or_says_why_not(
    ratio: str, tmp_path: Path, jaeger: Jaeger
) -> None:
    rules = ("--export", "closed", "--keep-ratio", ratio)
    same = {"REALTIME_OTEL_EXPORT": "closed", "REALTIME_OTEL_KEEP_RATIO": ratio}
    with running(tmp_path, jaeger, flags=rules) as chain:
        for look in ((), ("--jaeger", jaeger.query_url)):
            status, steps = chain.check(*look, **same)
            step = of(steps, "trace " if look else "spans of ")
            assert status == 0, steps
            assert step["state"] == ("note" if ratio == "0" else "ok"), step


def test_an_agent_without_the_token_that_the_collector_wants_is_told(chain: Chain) -> None:
    with secured_receiver("the-token") as endpoint:
        _, steps = chain.check(agent=endpoint)
        assert "UNAUTHENTICATED" in of(steps, AGENT)["said"]
        assert "wants a token" in of(steps, AGENT)["advice"]
        _, steps = chain.check(agent=endpoint, OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer the-token")
        assert of(steps, AGENT)["state"] == "ok"


def test_spans_that_wait_for_a_wrong_endpoint_are_found_in_the_outbox(tmp_path: Path, jaeger: Jaeger) -> None:
    with running(tmp_path, jaeger, stitched=NOWHERE) as chain:
        status, steps = chain.check("--timeout", "3")
    assert status == 1
    assert "it waits in the sidecar's outbox: UNAVAILABLE" in of(steps, "spans of ")["said"]


def test_spans_that_the_collector_cannot_pass_on_are_told_to_be_acknowledged(tmp_path: Path, jaeger: Jaeger) -> None:
    with running(tmp_path, jaeger, traces=NOWHERE) as chain:
        status, steps = chain.check("--jaeger", jaeger.query_url, "--timeout", "3")
    assert status == 1
    assert "the collector has acknowledged its spans" in of(steps, "trace ")["said"]
    assert "the exporter of the pipeline that begins with otlp/stitched" in of(steps, "trace ")["advice"]
