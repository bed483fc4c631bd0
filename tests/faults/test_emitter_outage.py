"""Records that never reach the collector: the trace says exactly how many, and is right about everything else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from opentelemetry.context import Context
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from realtime_otel import environment, guard
from tests.faults.emitter_outage import DROPPED, PARENT, PLACES, Call, Relay, found, outage, parts, values
from tests.sidecar import Backend

MINUTES = 10


@pytest.fixture(autouse=True)
def _not_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_quiet", {})


@pytest.fixture
def real(tmp_path: Path) -> Iterator[tuple[Backend, Relay]]:
    with parts(tmp_path, "--gap-wait", "1") as (backend, relay):
        yield backend, relay


def test_ten_minutes_without_a_collector_are_accounted_for_record_by_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls, wrong = outage(tmp_path, MINUTES, hurried=True)

    assert wrong == []
    assert {call.name.split("-")[0] for call in calls} == {"through", "ended", "begun", "within"}
    # More than the queue holds, and only some of it was lost; of the conversations that came last, nothing.
    assert sum(call.put for call in calls) > 100_000
    assert 0 < sum(call.dropped for call in calls) < sum(call.deltas for call in calls)
    full, away = sorted(message for message in caplog.messages if message.startswith("realtime-otel"))[::-1]
    assert re.fullmatch(
        r"realtime-otel: the collector at \S+ \(without TLS\) takes no records "
        r"\((UNAVAILABLE|CANCELLED)\); keeping them",
        away,
    )
    assert full == "realtime-otel: the queue is full; dropping records, deltas first"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_a_stream_whose_first_records_were_refused_has_its_parent_its_start_and_its_resource(
    real: tuple[Backend, Relay], place: str, code: grpc.StatusCode, caplog: pytest.LogCaptureFixture
) -> None:
    backend, relay = real

    def refuse_once(_request: ExportLogsServiceRequest, context: grpc.ServicerContext) -> None:
        relay.answer = lambda *_: None
        context.abort(code, "as the test says")

    relay.answer = refuse_once
    call = Call.opened(place, **PLACES[place])
    call.say(40)
    assert call.emitter.flush(60)
    call.say(40)
    call.close()
    assert call.emitter.flush(60)

    session, resource = found(backend, [call])[place]
    said, arrived = values(session.attributes), relay.passed[call.emitter.stream.emitter_id]
    assert arrived[0] == DROPPED
    lost = call.put - sum(name != DROPPED for name in arrived.values())
    assert lost >= 41
    assert said["openai.realtime.records.dropped"] == lost
    assert said["openai.realtime.records"] == len(arrived)
    assert said.get("openai.realtime.records.missing", 0) == 0
    assert session.start_time_unix_nano == call.emitter.stream.started
    assert session.parent_span_id == call.parent == (b"" if place == "root" else PARENT.span_id.to_bytes(8, "big"))
    assert resource == dict(environment.resource().attributes)
    (refused,) = (message for message in caplog.messages if "refuses" in message)
    place_of_it = f"{relay.endpoint.removeprefix('http://')} (without TLS)"
    assert refused == f"realtime-otel: the collector at {place_of_it} refuses records ({code.name}); dropping them"


def test_every_answer_in_turn_loses_only_what_was_refused(real: tuple[Backend, Relay]) -> None:
    backend, relay = real
    codes = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
    refused = 0

    def answer_in_turn(request: ExportLogsServiceRequest, context: grpc.ServicerContext) -> None:
        nonlocal refused
        if codes:
            code = codes.pop()
            if code.name not in RETRYABLE:
                refused += count(request)
            context.abort(code, "as the test says")

    relay.answer = answer_in_turn
    call = Call.opened("any", Context())
    while codes:
        call.say(5)
        call.emitter.flush(0.5)
    call.close()
    assert call.emitter.flush(60)

    said = values(found(backend, [call])["any"][0].attributes)
    arrived = relay.passed[call.emitter.stream.emitter_id]
    lost = call.put - sum(name != DROPPED for name in arrived.values())
    assert 0 < lost <= refused
    # What states a loss may be refused too; its numbers are then missing without a word.
    assert said["openai.realtime.records.dropped"] + said.get("openai.realtime.records.missing", 0) == lost


RETRYABLE = {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}


def count(request: ExportLogsServiceRequest) -> int:
    return sum(len(scope.log_records) for resource in request.resource_logs for scope in resource.scope_logs)


def test_what_a_collector_takes_only_in_part_is_missing_in_the_trace_and_logged(
    real: tuple[Backend, Relay], caplog: pytest.LogCaptureFixture
) -> None:
    backend, relay = real
    relay.rejects = 3
    call = Call.opened("some", Context())
    call.say(40)
    call.close()
    assert call.emitter.flush(60)

    said = values(found(backend, [call])["some"][0].attributes)
    assert said["openai.realtime.records.missing"] == 3
    assert said["openai.realtime.records"] == call.put - 3
    assert "realtime-otel: the collector rejected 3 log records: as the test says" in caplog.messages
