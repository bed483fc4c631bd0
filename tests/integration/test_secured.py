"""`deploy/overlays/secure`, unmodified, in a real Collector: who gets in, and what becomes of data meanwhile."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from realtime_otel_sidecar import credentials
from realtime_otel_sidecar.config import Settings
from tests.certificates import Authority
from tests.conversing import demo_servers, hold_conversation
from tests.integration.scraping import scraped
from tests.integration.secured import (
    OVERLAY,
    Chain,
    Secrets,
    http_status,
    refusal,
    secured_chain,
    sidecar_environment,
)
from tests.sidecar import LOGS_METHOD, TRACE_SERVICE
from tests.stack.processes import Jaeger

pytestmark = pytest.mark.stack

EXPIRED, AN_HOUR = timedelta(seconds=-1), timedelta(hours=1)
DROPPED = "Dropping data"
"""What the Collector says when it gives up."""


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    return Secrets(tmp_path / "secrets")


@pytest.fixture
def chain(tmp_path: Path, jaeger: Jaeger, secrets: Secrets) -> Iterator[Chain]:
    with secured_chain(tmp_path, jaeger, secrets) as running:
        yield running


def eventually(condition: Callable[[], bool], timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.1)


# --- Who gets in ----------------------------------------------------------------------------------------------------


def test_a_conversation_of_a_real_agent_goes_through_with_standard_settings_alone(chain: Chain) -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://{chain.collector.otlp_endpoint}",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(chain.secrets.folder / "agents" / "ca.pem"),
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20token-of-agents",
    }
    with demo_servers(environment) as servers:
        trace_id = hold_conversation(servers, "weather", speed=4.0, environment=environment)
    spans = chain.jaeger.wait_for_spans(trace_id, 8)
    assert {"realtime_session gpt-realtime", "execute_tool get_weather"} <= {span["operationName"] for span in spans}


def test_what_the_sidecar_says_of_itself_goes_the_same_way(chain: Chain) -> None:
    chain.wait_for(chain.send())
    eventually(lambda: bool(scraped(chain.collector).get("realtime_otel_sidecar_span_exported_total")))


def test_nobody_gets_in_who_does_not_show_all_that_is_asked_for(chain: Chain) -> None:
    known = chain.secrets.authority.client(chain.secrets.authority.issue("agent"))
    forged = Authority(chain.secrets.folder / "forged")
    unknown = chain.secrets.authority.client(forged.issue("agent"))
    back, traces = chain.collector.stitched_endpoint, f"/{TRACE_SERVICE}/Export"
    for endpoint, method, token in (
        (chain.listen, LOGS_METHOD, "token-of-collector"),
        (back, traces, "token-of-sidecar"),
    ):
        assert refusal(endpoint, method, known, f"Bearer {token}") is grpc.StatusCode.OK
        assert refusal(endpoint, method, known, "Bearer token-of-agents") is grpc.StatusCode.UNAUTHENTICATED
        for tls in (chain.trust, unknown, None):
            assert refusal(endpoint, method, tls, f"Bearer {token}") is grpc.StatusCode.UNAVAILABLE
    entrance = chain.collector.otlp_endpoint
    assert refusal(entrance, LOGS_METHOD, chain.trust, "Bearer token-of-agents") is grpc.StatusCode.OK
    assert refusal(entrance, LOGS_METHOD, chain.trust, "Bearer token-of-sidecar") is grpc.StatusCode.UNAUTHENTICATED
    assert refusal(entrance, LOGS_METHOD, None, "Bearer token-of-agents") is grpc.StatusCode.UNAVAILABLE


def test_over_http_agents_need_a_token_too(chain: Chain) -> None:
    url = chain.collector.otlp_http_url.replace("http:", "https:") + "/v1/logs"
    authority = chain.secrets.authority
    assert http_status(url, authority, "Bearer token-of-agents") == 200
    assert http_status(url, authority, "Bearer token-of-sidecar") == 401
    assert http_status(url, authority, "") == 401


# --- Certificates that are not good ---------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["collector", "sidecar"])
@pytest.mark.parametrize("problem", ["expired", "of another authority"])
def test_data_waits_while_a_certificate_is_not_good_and_goes_through_when_it_is_replaced(
    problem: str, whose: str, chain: Chain
) -> None:
    """A handshake that fails is UNAVAILABLE to the Collector: with the shipped retry settings it never gives up."""
    secrets, log = chain.secrets, chain.collector.process.log
    chain.sidecar.stop()
    recording = chain.send()
    issuer = secrets.authority if problem == "expired" else Authority(secrets.folder / "stranger")
    secrets.show(whose, issuer.issue(whose, host=whose, lasts=EXPIRED if problem == "expired" else AN_HOUR))
    time.sleep(0.2)  # the Collector looks at its certificate ten times a second
    chain.sidecar.start()
    eventually(lambda: "handshake failed" in (log.read_text() + chain.sidecar.log.read_text()).lower())
    assert not chain.has(recording)
    secrets.show(whose, secrets.authority.issue(whose, host=whose))
    chain.wait_for(recording)
    assert DROPPED not in log.read_text()


# --- Tokens that are not good ---------------------------------------------------------------------------------------


def hand_over(chain: Chain, text: str, file: str) -> None:
    """Replace one of the Collector's token files, and return when it has been read."""
    log, line = chain.collector.process.log, f'"filename": "{chain.secrets.folder / file}"'
    before = log.read_text().count(line)
    chain.secrets.write(text, file)
    eventually(lambda: log.read_text().count(line) > before)


def test_what_the_collector_sends_with_a_token_that_the_sidecar_does_not_know_is_lost(chain: Chain) -> None:
    """OTLP's rule: UNAUTHENTICATED is not sent again. So the sidecar has to know a token before the Collector does."""
    hand_over(chain, "unknown", "collector/sidecar.token")
    lost = chain.send()
    eventually(lambda: DROPPED in chain.collector.process.log.read_text())
    assert "without a token of listen_token_file" in chain.sidecar.log.read_text()
    hand_over(chain, "token-of-collector", "collector/sidecar.token")
    chain.wait_for(chain.send())
    assert not chain.has(lost)


def test_spans_wait_in_the_sidecar_for_a_token_that_the_collector_knows(chain: Chain) -> None:
    chain.secrets.write("unknown", "sidecar/endpoint.token")
    recording = chain.send()
    eventually(lambda: "(see endpoint_token_file)" in chain.sidecar.log.read_text())
    assert not chain.has(recording)
    chain.secrets.write("token-of-sidecar", "sidecar/endpoint.token")
    chain.wait_for(recording)


def test_all_tokens_are_replaced_in_the_documented_order_while_conversations_come_and_none_is_lost(
    chain: Chain,
) -> None:
    sent = [chain.send()]
    for server, client, old in (
        ("sidecar/listen.tokens", "collector/sidecar.token", "token-of-collector"),
        ("collector/stitched.tokens", "sidecar/endpoint.token", "token-of-sidecar"),
    ):
        for file, text in ((server, f"{old}\nnext"), (client, "next"), (server, "next")):
            if file.startswith("collector"):
                hand_over(chain, text, file)
            else:
                chain.secrets.write(text, file)
            sent.append(chain.send())
            chain.wait_for(sent[-1])
    for recording in sent:
        chain.wait_for(recording)
    assert DROPPED not in chain.collector.process.log.read_text()
    assert "UNAUTHENTICATED" not in chain.sidecar.log.read_text()


# --- The files ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_the_script_makes_what_the_overlay_needs(tmp_path: Path, secrets: Secrets) -> None:
    made = tmp_path / "made"
    subprocess.run([OVERLAY / "make-secrets.sh", made], check=True, timeout=30)
    parts = ("collector", "sidecar", "agents")
    needed = {path.relative_to(secrets.folder) for part in parts for path in (secrets.folder / part).iterdir()}
    there = {path.relative_to(made) for part in parts for path in (made / part).iterdir()}
    assert there == needed | {Path("agents/otlp.env")}
    assert made.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for part in parts for path in (made / part).iterdir()} == {0o444}
    environment = sidecar_environment(made / "sidecar")
    values = {name.removeprefix("REALTIME_OTEL_").lower(): path for name, path in environment.items()}
    settings = Settings(endpoint="https://collector:4319", **values)  # type: ignore[arg-type]
    credentials.of_listen(settings)
    credentials.of_endpoint(settings)


def test_the_script_changes_nothing_where_something_is(tmp_path: Path) -> None:
    done = subprocess.run([OVERLAY / "make-secrets.sh", tmp_path], check=False, capture_output=True, timeout=30)
    assert done.returncode != 0
    assert list(tmp_path.iterdir()) == []
