"""The sidecar's own telemetry, from the real process through the real Collector: what is told is what was done."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import grpc
import pytest

from docs.generate.telemetry import prometheus_name
from realtime_otel.contract import Fact
from realtime_otel_sidecar.store.rows import unpack_request
from realtime_otel_sidecar.telemetry.instruments import INSTRUMENTS, PREFIX, Kind
from realtime_otel_sidecar.telemetry.reporting import SERVICE_NAME
from tests import conversations as talk
from tests.integration.scraping import eventually, scraped
from tests.sidecar import Client, SidecarProcess, code_of, conversation, one_by_one, record
from tests.stack.processes import Collector, start_collector
from tests.unit.sidecar.rig import core_spans
from tests.unit.sidecar.rig import eventually as until
from tests.unit.sidecar.test_decode import changed, request_of, said

pytestmark = pytest.mark.stack

OFTEN: Final = ("--telemetry-interval", "0.3")
BY_NAME: Final = {each.name.removeprefix(PREFIX): each for each in INSTRUMENTS}


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    with start_collector(tmp_path_factory.mktemp("collector")) as server:
        yield server


def sidecar_of(folder: Path, collector: Collector, *flags: str, env: dict[str, str] | None = None) -> SidecarProcess:
    endpoint = f"http://{collector.stitched_endpoint}"
    before = ["env", *(f"{name}={value}" for name, value in (env or {}).items())]
    return SidecarProcess(folder, endpoint, *(flags or OFTEN), before=before)


def identity(sidecar: SidecarProcess) -> str:
    with closing(sqlite3.connect(f"file:{sidecar.data_dir}/realtime-otel.db?mode=ro", uri=True)) as connection:
        return str(connection.execute("SELECT id FROM directory").fetchone()[0])


class Told:
    """What the Collector shows of one sidecar."""

    def __init__(self, collector: Collector, sidecar: SidecarProcess) -> None:
        self._collector = collector
        self._instance = identity(sidecar)

    def all(self, name: str, part: str = "") -> dict[tuple[tuple[str, str], ...], float]:
        """The values of an instrument, by its own labels."""
        instrument = BY_NAME[name]
        own = {label.replace(".", "_") for label in instrument.labels}
        return {
            tuple(sorted((label, value) for label, value in labels.items() if label in own)): number
            for labels, number in scraped(self._collector).get(prometheus_name(instrument) + part, [])
            if labels.get("instance") == self._instance
        }

    def value(self, name: str, part: str = "", **labels: str) -> float:
        """One of them; ``labels`` by the end of their names."""
        found = [
            number
            for given, number in self.all(name, part).items()
            if {label.rpartition("sidecar_")[2]: value for label, value in given} == labels
        ]
        assert found, f"no {name} with {labels} among {self.all(name, part)}"
        return found[0]

    def comes_to(self, wanted: float, name: str, part: str = "", **labels: str) -> None:
        eventually(lambda: self.value(name, part, **labels), wanted)


def refused(client: Client, request: bytes) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as raised:
        client.send(request)
    return code_of(raised.value)


def test_each_instrument_arrives_under_the_name_in_the_docs_with_job_and_instance(
    collector: Collector, tmp_path: Path
) -> None:
    with sidecar_of(tmp_path, collector) as sidecar, Client(sidecar.port) as client:
        for request in one_by_one(conversation("named")):
            client.send(request)
        told = Told(collector, sidecar)
        told.comes_to(len(core_spans([conversation("named").request()])), "span.exported")
        samples = scraped(collector)
        for instrument in INSTRUMENTS:
            if instrument.name == f"{PREFIX}service.evicted":  # nothing was
                continue
            name = prometheus_name(instrument) + ("_bucket" if instrument.kind is Kind.HISTOGRAM else "")
            found = [labels for labels, _ in samples.get(name, []) if labels.get("instance") == told._instance]
            assert found, name
            for labels in found:
                assert labels["job"] == labels["service_name"] == SERVICE_NAME
            if instrument.bounds:
                ends = {float(labels["le"]) for labels in found}
                assert ends == {*instrument.bounds, float("inf")}
        ours = {name for name in samples if name.startswith("realtime_otel_sidecar_")}
        parts = ("", "_bucket", "_sum", "_count")
        assert ours <= {prometheus_name(each) + part for each in INSTRUMENTS for part in parts}
        about = [labels for labels, _ in samples["target_info"] if labels.get("instance") == told._instance]
        assert [labels["service_version"] for labels in about] == ["0.1.0"]


def test_what_is_told_is_what_was_done(collector: Collector, tmp_path: Path) -> None:
    whole, gap = conversation("whole", turns=3), conversation("gap")
    steps = [*talk.opened(), *talk.session(), *talk.speech("item"), talk.fact(Fact.RECORDS_DROPPED, ranges=[[2, 2]])]
    dropped = record([*steps, *talk.closed()], "dropped")
    late = record([*talk.opened(), *talk.closed(), talk.fact(Fact.HEARTBEAT)], "late")
    large = changed(request_of(), said('"' + "x" * 33_000 + '"'))
    flags = ["--max-streams", "2", "--max-streams-per-service", "2", "--max-body-kib", "32", "--gap-wait", "3"]
    with sidecar_of(tmp_path, collector, *OFTEN, *flags, "--max-records-per-request", "1000") as sidecar:
        told = Told(collector, sidecar)
        with Client(sidecar.port) as client:
            for request in (*one_by_one(whole), whole.request(0, 5)):
                client.send(request)
            told.comes_to(5, "record.duplicate")
            assert told.value("session.ended", session_records="complete") == 1

            for request in (gap.request(0, 4), gap.request(5, 8)):
                client.send(request)
            told.comes_to(3, "record.held")
            assert (told.value("gap.count"), told.value("stream.count")) == (1, 1)
            assert told.value("record.missing") == 0
            assert told.value("limit.utilization", limit="max_streams") == 0.5
            client.send(gap.request(8))
            told.comes_to(1, "session.ended", session_records="missing")
            assert told.value("record.missing") == 1
            assert told.value("gap.count") == 0

            for request in (dropped.request(0, 2), dropped.request(3), late.request(), large):
                client.send(request)
            told.comes_to(1, "limit.reached", limit="max_body_kib")
            assert told.value("session.ended", session_records="dropped") == 1
            assert told.value("record.dropped") == 1
            assert told.value("record.rejected", error_type="broken") == 1
            assert told.value("record.rejected", error_type="after_close") == 1
            assert told.value("dead_letter.written", error_type="contract") == 1
            assert told.value("dead_letter.written", error_type="after_close") == 1
            assert told.value("dead_letter.count") == 2
            assert told.value("tombstone.count") == 4

            assert refused(client, b"no request") is grpc.StatusCode.INVALID_ARGUMENT
            assert refused(client, whole.request() * 20) is grpc.StatusCode.RESOURCE_EXHAUSTED
            told.comes_to(1, "request.refused", error_type="too_many_records", retryable="false")
            assert told.value("request.refused", error_type="invalid", retryable="false") == 1

            for name in ("a", "b", "c"):
                client.send(record(talk.opened(), name).request())
            told.comes_to(1, "stream.evicted", limit="max_streams")
            assert told.value("service.evicted", service="agent-a") == 1
            assert told.value("stream.count") == 2
            assert told.value("limit.utilization", limit="max_streams") == 1

        records = len(whole.records) + 5 + len(gap.records) - 1 + len(dropped.records) - 1 + len(late.records) + 3
        assert told.value("record.received") == records
        requests = len(one_by_one(whole)) + 1 + 3 + 4 + 3
        assert told.value("request.duration", "_count") == requests
        assert told.value("request.duration", "_count", error_type="invalid") == 1
        assert 0 < told.value("record.delay", "_count") < requests, "all but the one whose record was none"
        with closing(sqlite3.connect(f"file:{sidecar.data_dir}/realtime-otel.db?mode=ro", uri=True)) as connection:
            rows = [unpack_request(data) for (data,) in connection.execute("SELECT data FROM journal")]
        assert (told.value("journal.length"), told.value("journal.usage")) == (len(rows), sum(map(len, rows)))
        requests_taken = [
            whole.request(),
            gap.request(0, 4) + gap.request(5),
            dropped.request(0, 2) + dropped.request(3),
        ]
        spans = len(core_spans(requests_taken, ended=True)) + len(("the session of late", "the session of a"))
        told.comes_to(spans, "span.exported")
        assert told.value("span.settled") == spans
        assert told.value("span.age", "_count") == told.value("span.delay", "_count") > 0
        assert told.value("span.age", "_sum") > 86400 > told.value("span.delay", "_sum"), "they tell of New Year"
        assert told.value("outbox.span.count") == told.value("outbox.usage") == told.value("outbox.age") == 0
        assert told.value("export.duration", "_count", signal="traces") > 0
        assert told.value("checkpoint.written") == 0
        assert sidecar.stop() == 0
        assert told.value("checkpoint.written") == 7, "streams, each of which has changed"
        assert told.value("serving") == 0


def test_spans_that_wait_are_seen_to_wait(tmp_path: Path) -> None:
    """A collector that takes metrics, and whose way to the backend is shut: spans wait."""
    request = conversation("waiting").request()
    spans = len(core_spans([request]))
    (tmp_path / "collector").mkdir()
    shut = tmp_path / "shut.yaml"
    shut.write_text("service:\n  pipelines:\n    traces/stitched: {receivers: [otlp], exporters: [debug]}\n")
    with (
        start_collector(tmp_path / "collector", overlays=[shut]) as collector,
        sidecar_of(tmp_path / "sidecar", collector) as sidecar,
        Client(sidecar.port) as client,
    ):
        client.send(request)
        told = Told(collector, sidecar)
        told.comes_to(spans, "outbox.span.count")
        with closing(sqlite3.connect(f"file:{sidecar.data_dir}/realtime-otel.db?mode=ro", uri=True)) as connection:
            (size,) = connection.execute("SELECT sum(length(data)) FROM outbox").fetchone()
        assert told.value("outbox.usage") == size
        assert told.value("outbox.utilization") == pytest.approx(size / told.value("outbox.limit"))
        assert told.value("limit.utilization", limit="outbox_mib") == pytest.approx(size / 2**30)
        first = told.value("outbox.age")
        until(lambda: told.value("outbox.age") > first)
        assert told.value("span.exported") == 0
        assert told.value("span.settled") == spans
        assert told.value("export.duration", "_count", signal="traces", error_type="UNIMPLEMENTED") > 0


def test_a_restart_begins_at_nothing_under_the_same_name(collector: Collector, tmp_path: Path) -> None:
    recording = conversation("restarted", turns=2)
    with sidecar_of(tmp_path, collector) as sidecar:
        told = Told(collector, sidecar)
        with Client(sidecar.port) as client:
            client.send(recording.request(0, 10))
        told.comes_to(10, "record.received")
        sidecar.kill()
        sidecar.start()
        told.comes_to(0, "record.received")
        assert told.value("stream.count") == 1, "what is open is taken up"
        with Client(sidecar.port) as client:
            client.send(recording.request(10))
        told.comes_to(len(recording.records) - 10, "record.received")
        assert told.value("record.duplicate") == 0
        assert told.value("recovery.duration") > 0


def test_a_stop_tells_the_last_of_it(collector: Collector, tmp_path: Path) -> None:
    with sidecar_of(tmp_path, collector, "--telemetry-interval", "3600") as sidecar:
        told = Told(collector, sidecar)
        with Client(sidecar.port) as client:
            client.send(conversation("last").request())
        assert told.all("record.received") == {}
        assert sidecar.stop() == 0
        assert told.value("record.received") == len(conversation("last").records)
        assert told.value("span.exported") == told.value("span.settled") > 0


@pytest.mark.parametrize("off", [("--telemetry-interval", "0"), ()])
def test_it_can_be_turned_off_and_the_conversations_are_measured_all_the_same(
    off: tuple[str, ...], collector: Collector, tmp_path: Path
) -> None:
    service = f"quiet-{len(off)}"
    environment = {} if off else {"OTEL_SDK_DISABLED": "true"}
    with sidecar_of(tmp_path, collector, "--metrics-interval", "0.2", *off, env=environment) as sidecar:
        with Client(sidecar.port) as client:
            client.send(conversation("quiet", service=service).request())
        ended = "openai_realtime_sessions_ended_total"
        eventually(lambda: sum(n for labels, n in scraped(collector)[ended] if labels["service_name"] == service), 1)
        assert Told(collector, sidecar).all("record.received") == {}
        assert sidecar.stop() == 0
        assert Told(collector, sidecar).all("record.received") == {}


def test_a_collector_that_is_away_costs_one_line_and_its_return_tells_everything(tmp_path: Path) -> None:
    recording = conversation("away", turns=4)
    (tmp_path / "collector").mkdir()
    with start_collector(tmp_path / "collector") as collector:
        often = ("--telemetry-interval", "0.05", "--metrics-interval", "0.05")
        with sidecar_of(tmp_path / "sidecar", collector, *often) as sidecar, Client(sidecar.port) as client:
            client.send(recording.request(0, 5))
            told = Told(collector, sidecar)
            told.comes_to(5, "record.received")
            collector.kill()
            for request in one_by_one(recording):
                client.send(request)
            until(lambda: "does not take metrics" in sidecar.log)
            time.sleep(2)  # it is tried all the time
            assert sidecar.log.count("does not take metrics") == 1
            collector.start()
            told.comes_to(len(recording.records) + 5, "record.received")
            assert told.value("export.duration", "_count", signal="metrics", error_type="UNAVAILABLE") > 1
            assert sidecar.log.count("takes metrics again") == 1
            collector.kill()
            began = time.monotonic()
            assert sidecar.stop() == 0
            assert time.monotonic() - began < 5 + 2 * 1 + 8, "the drain, twice a second for metrics, and a slow machine"


def test_standard_variables_name_it_and_cannot_take_its_identity(collector: Collector, tmp_path: Path) -> None:
    standard = {
        "OTEL_SERVICE_NAME": "stitcher",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test,service.instance.id=pod-1",
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
    }
    with sidecar_of(tmp_path, collector, "--no-tool-logs", env=standard) as sidecar:
        told = Told(collector, sidecar)
        told.comes_to(0, "record.received")
        labels = [each for each, _ in scraped(collector)[prometheus_name(BY_NAME["record.received"])]]
        (ours,) = [each for each in labels if each["instance"] == told._instance]
        assert (ours["job"], ours["deployment_environment_name"]) == ("stitcher", "test")
