"""Spans that the collector refuses for good: they are set aside alone, and nothing waits behind them."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from realtime_otel_sidecar.otlp import sender as sender_module
from realtime_otel_sidecar.otlp.refusal import PROBES, pieces, single_spans
from realtime_otel_sidecar.store.database import Database
from realtime_otel_sidecar.store.outbox import OutboxReader
from realtime_otel_sidecar.store.rows import Batch, OutboxRow
from tests.sidecar import Answer, Backend, exhausted, partial, refused, spans_of, unavailable
from tests.unit.sidecar.rig import eventually
from tests.unit.sidecar.sending import Running, numbers, row

MIB = 1024 * 1024


def rows_of(*groups: tuple[int, ...]) -> list[bytes]:
    """An outbox row for each group of numbers."""
    return [b"".join(row(number) for number in group) for group in groups]


def refuses(bad: set[int], answer: Answer) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    """Answers so where one of the numbers is among the spans, and takes everything else."""

    def judge(request: bytes, context: grpc.ServicerContext) -> bytes:
        return answer(context) if bad & set(numbers([request])) else b""

    return judge


def set_aside(running: Running) -> list[int]:
    return numbers([each.data for each in running.refused])


def test_what_is_rejected_of_spans_that_are_sent_one_by_one_is_counted(running: Running, backend: Backend) -> None:
    def judge(request: bytes, context: grpc.ServicerContext) -> bytes:
        if 3 in numbers([request]):
            return refused(grpc.StatusCode.INVALID_ARGUMENT)(context)
        return partial(1)(context) if numbers([request]) in ([1], [2]) else b""

    backend.judge = judge
    running.put(*rows_of((1, 2, 3, 4), (5,)))
    eventually(lambda: running.acknowledged == [1, 2])
    assert set_aside(running) == [3]
    assert running.rejected == 2
    assert running.said == ["1 of the spans of one request were rejected: not these"]


FINAL = {
    code.name: refused(code)
    for code in (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ALREADY_EXISTS,
    )
}
WAITS = {
    code.name: refused(code)
    for code in (
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    )
}


@pytest.mark.parametrize("answer", FINAL.values(), ids=FINAL)
def test_a_refused_span_is_set_aside_alone_and_all_others_arrive_in_their_order(
    answer: Answer, running: Running, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.judge = refuses({4, 9}, answer)
    running.put(*rows_of((1, 2), (3, 4, 5), (6,), (7, 8), (9,), (10,)))
    eventually(lambda: running.acknowledged[-1:] == [6])
    assert set_aside(running) == [4, 9]
    first_time = list(dict.fromkeys(numbers(backend.accepted[1:])))  # the first that it took showed that it takes any
    assert first_time == [1, 2, 3, 5, 6, 7, 8, 10]
    assert {each.stream for each in running.refused} == {(b"t" * 16).hex()}
    reason = running.refused[0].reason
    assert reason.startswith("refused by the collector: ")
    assert reason.endswith(": as the test says")
    assert sum(each.levelno == logging.ERROR and "has refused" in each.getMessage() for each in caplog.records) == 2


@pytest.mark.parametrize("place", ["first", "last"])
def test_however_many_spans_are_refused_the_one_that_is_not_arrives(
    place: str, running: Running, backend: Backend
) -> None:
    bad = set(range(3 * PROBES))
    good = 1000
    backend.judge = refuses(bad, FINAL["INVALID_ARGUMENT"])
    order = [good, *sorted(bad)] if place == "first" else [*sorted(bad), good]
    running.put(*rows_of(*((number,) for number in order)))
    eventually(lambda: running.acknowledged[-1:] == [len(order)])
    assert sorted(set_aside(running)) == sorted(bad)
    assert set(numbers(backend.accepted)) == {good}


@pytest.mark.parametrize("answer", [*FINAL.values(), *WAITS.values()], ids=[*FINAL, *WAITS])
def test_a_collector_that_refuses_everything_costs_nothing_whatever_it_says(
    answer: Answer, running: Running, backend: Backend
) -> None:
    backend.answer = answer
    running.put(*rows_of((1, 2), (3,), (4, 5)))
    backend.wait_until(lambda: len(backend.seen) > 12)
    assert (running.acknowledged, running.refused) == ([], [])
    backend.answer = lambda _context: b""
    eventually(lambda: running.acknowledged[-1:] == [3])
    assert set(numbers(backend.accepted)) == {1, 2, 3, 4, 5}
    assert running.refused == []


@pytest.mark.parametrize("answer", WAITS.values(), ids=WAITS)
def test_what_is_a_mistake_of_configuration_is_no_refusal_of_a_span(
    answer: Answer, running: Running, backend: Backend
) -> None:
    """Even where the collector takes others: a tenant without a permission, a quota that is used up."""
    backend.judge = refuses({2}, answer)
    running.put(*rows_of((1,)))
    eventually(lambda: running.acknowledged == [1])
    running.put(*rows_of((2,), (3,)))
    backend.wait_until(lambda: len(backend.seen) > 5)
    assert running.refused == []
    backend.judge = None
    eventually(lambda: running.acknowledged[-1:] == [3])
    assert numbers(backend.accepted) == [1, 2, 3]


def test_a_refused_span_that_is_alone_waits_until_the_collector_takes_another(
    running: Running, backend: Backend
) -> None:
    backend.judge = refuses({1}, FINAL["INVALID_ARGUMENT"])
    running.put(row(1))
    backend.wait_until(lambda: len(backend.seen) > 5)
    assert running.refused == []
    running.put(row(2))
    eventually(lambda: running.acknowledged[-1:] == [2])
    assert set_aside(running) == [1]


def test_a_collector_that_goes_away_while_a_refusal_is_sorted_out_gets_the_rest_later(
    running: Running, backend: Backend
) -> None:
    refuse = refuses({3}, FINAL["INVALID_ARGUMENT"])
    away = unavailable()
    seen = 0

    def judge(request: bytes, context: grpc.ServicerContext) -> bytes:
        nonlocal seen
        seen += 1
        return away(context) if seen in (4, 5, 9) else refuse(request, context)

    backend.judge = judge
    running.put(*rows_of((1, 2), (3, 4), (5, 6)))
    eventually(lambda: running.acknowledged[-1:] == [3])
    assert set_aside(running) == [3]
    assert set(numbers(backend.accepted)) == {1, 2, 4, 5, 6}
    assert running.acknowledged == sorted(set(running.acknowledged)), "each row once, in their order"


def test_a_row_that_is_damaged_is_set_aside_whole(running: Running, backend: Backend) -> None:
    def judge(request: bytes, context: grpc.ServicerContext) -> bytes:
        return FINAL["INTERNAL"](context) if b"\xff\xff" in request else b""

    backend.judge = judge
    damaged = b"\xff\xff no request"
    running._database.commit(Batch(outbox=[OutboxRow(1, 1, data) for data in (row(1), damaged, row(2))]))
    running.sender.wake()
    eventually(lambda: running.acknowledged[-1:] == [3])
    assert [(each.data, each.stream) for each in running.refused] == [(damaged, "")]


# --- Sizes ----------------------------------------------------------------------------------------------------------


def test_a_row_that_is_larger_than_a_request_may_be_is_sent_in_pieces_and_acknowledged_as_one(
    running: Running, backend: Backend
) -> None:
    running.sender._limit = 10_000
    large = b"".join(row(number, padding=3000) for number in range(8))
    running.put(row(100), large, row(101))
    eventually(lambda: running.acknowledged == [1, 2, 3])
    assert max(map(len, backend.accepted)) <= 10_000
    assert numbers(backend.accepted) == [100, *range(8), 101]


def test_a_collector_that_takes_less_is_sent_less(running: Running, backend: Backend) -> None:
    answer = exhausted()

    def judge(request: bytes, context: grpc.ServicerContext) -> bytes:
        return answer(context) if len(request) > 1.2 * MIB else b""

    backend.judge = judge
    running.put(*(row(number, padding=MIB // 5) for number in range(12)))
    eventually(lambda: running.acknowledged[-1:] == [12])
    assert numbers(backend.accepted) == list(range(12))
    assert running.refused == []
    before = len(backend.seen)
    running.put(*(row(number, padding=MIB // 5) for number in range(12, 20)))
    eventually(lambda: running.acknowledged[-1:] == [20])
    assert len(backend.seen) - before == 2, "it is remembered"


def test_a_span_that_alone_is_larger_than_the_collector_takes_is_set_aside(running: Running, backend: Backend) -> None:
    answer = exhausted()

    def judge(request: bytes, context: grpc.ServicerContext) -> bytes:
        return answer(context) if len(request) > 2 * MIB else b""

    backend.judge = judge
    running.put(row(1), row(2, padding=3 * MIB), row(3))
    eventually(lambda: running.acknowledged[-1:] == [3])
    assert set_aside(running) == [2]
    assert set(numbers(backend.accepted)) == {1, 3}


@pytest.mark.parametrize("limit", [1, 100, 1000, 10**6])
def test_pieces_hold_the_same_spans_in_the_same_order(limit: int) -> None:
    request = b"".join(row(number, padding=number * 30) for number in range(20))
    parts = list(pieces(request, limit))
    assert numbers(parts) == list(range(20))
    assert [data for part in parts for _, data in spans_of(part)] == [data for _, data in spans_of(request)]
    assert all(len(part) <= limit or len(numbers([part])) == 1 for part in parts)


def test_a_span_alone_keeps_its_resource_and_scope() -> None:
    request = row(1) + row(2)
    assert b"".join(single_spans(request)) == request


# --- Damage and long outages ----------------------------------------------------------------------------------------


def test_damage_that_the_sender_comes_upon_is_reported(
    running: Running, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_reader: OutboxReader, _last: int, **_bounds: Any) -> list[tuple[int, bytes]]:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    monkeypatch.setattr(OutboxReader, "after", fails)
    running.put(row(1))
    eventually(lambda: bool(running.damage))


def test_a_collector_that_is_down_for_hours_gets_everything_in_order_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waits are a thousandth of what they are, and so is the outage: some thousand attempts, as in two hours."""
    monkeypatch.setattr(sender_module, "FIRST_WAIT", 0.0001)
    monkeypatch.setattr(sender_module, "LONGEST_WAIT", 0.005)
    database = Database(tmp_path / "data")
    with Backend() as backend:
        backend.answer = unavailable()
        running = Running(database, backend.endpoint)
        running.sender.start()
        for number in range(100):
            running.put(row(number))
            backend.wait_until(lambda number=number: len(backend.seen) > 10 * number)  # type: ignore[misc]
        backend.close()
        for number in range(100, 200):
            running.put(row(number))
        backend.answers, backend.answer = [], lambda _context: b""
        backend.open()
        eventually(lambda: running.acknowledged[-1:] == [200])
        running.sender.stop(1)
        assert numbers(backend.accepted) == list(range(200))
    database.close()
