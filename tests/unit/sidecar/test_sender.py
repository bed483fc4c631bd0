"""The sender, over real gRPC: rows arrive in their order, and go only when the backend has acknowledged them."""

from __future__ import annotations

import threading
import time
from typing import Any, NoReturn

import grpc
import pytest

from realtime_otel_sidecar.otlp import sender as sender_module
from realtime_otel_sidecar.otlp.sender import Sender
from realtime_otel_sidecar.store.database import Database
from realtime_otel_sidecar.store.outbox import OutboxReader
from tests.sidecar import Answer, Backend, exhausted, garbage, partial, refused, slow, unavailable
from tests.unit.sidecar.sending import Running, numbers, row, waiting


def test_rows_are_sent_in_their_order_and_acknowledged_once_they_are_accepted(
    running: Running, backend: Backend
) -> None:
    running.put(row(1), row(2))
    running.put(row(3))
    backend.wait_until(lambda: len(numbers(backend.accepted)) == 3)
    running.sender.stop(5)
    assert numbers(backend.accepted) == [1, 2, 3]
    assert running.acknowledged[-1] == 3


def test_rows_of_before_the_start_are_sent(database: Database, backend: Backend) -> None:
    database.commit(waiting(row(1), row(2)))
    running = Running(database, backend.endpoint)
    running.sender.start()
    running.sender.stop(5)
    assert numbers(backend.accepted) == [1, 2]


RETRIED: dict[str, Answer] = {
    "unavailable": unavailable(),
    "unavailable, with a delay": unavailable(0.05),
    "exhausted, with a delay": exhausted(0.05),
    "exhausted": exhausted(),
    "deadline exceeded": refused(grpc.StatusCode.DEADLINE_EXCEEDED),
    "cancelled": refused(grpc.StatusCode.CANCELLED),
    "aborted": refused(grpc.StatusCode.ABORTED),
    "out of range": refused(grpc.StatusCode.OUT_OF_RANGE),
    "data loss": refused(grpc.StatusCode.DATA_LOSS),
    "a wrong address": refused(grpc.StatusCode.UNIMPLEMENTED),
    "a missing credential": refused(grpc.StatusCode.UNAUTHENTICATED),
    "a defect there": refused(grpc.StatusCode.UNKNOWN),
}


@pytest.mark.parametrize("answer", RETRIED.values(), ids=RETRIED)
def test_a_row_that_is_refused_is_kept_and_sent_again(answer: Answer, running: Running, backend: Backend) -> None:
    backend.answers = [answer] * 3
    running.put(row(1))
    backend.wait_until(lambda: len(backend.seen) == 3)
    assert running.acknowledged == []
    backend.wait_until(lambda: bool(backend.accepted))
    running.sender.stop(5)
    assert running.acknowledged == [1]
    assert {request for _, request in backend.seen} == {row(1)}


@pytest.mark.parametrize("answer", [unavailable(0.6), exhausted(0.6)], ids=["unavailable", "exhausted"])
def test_the_delay_that_the_backend_asks_for_is_kept(answer: Answer, running: Running, backend: Backend) -> None:
    backend.answers = [answer]
    running.put(row(1))
    backend.wait_until(lambda: bool(backend.accepted))
    (first, _), (second, _) = backend.seen
    assert second - first >= 0.6


def test_a_delay_of_years_is_not_kept(running: Running, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "LONGEST_DELAY", 0.05)
    backend.answers = [unavailable(10**9)]
    running.put(row(1))
    backend.wait_until(lambda: bool(backend.accepted))


def test_without_a_delay_the_waits_grow_up_to_a_bound(
    running: Running, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait, waits = running.sender._ending.wait, list[float]()

    def noted(seconds: float) -> bool:
        waits.append(seconds)
        return wait(seconds)

    monkeypatch.setattr(running.sender._ending, "wait", noted)
    backend.answer = unavailable()
    running.put(row(1))
    backend.wait_until(lambda: len(backend.seen) == 8)
    for seconds, most in zip(waits, [0.01, 0.02, 0.04, 0.08, 0.1, 0.1, 0.1], strict=False):
        assert most / 2 <= seconds <= most
    assert len(set(waits)) == len(waits) >= 7, "those of several sidecars do not fall together"


def test_spans_that_the_backend_rejects_are_not_sent_again(running: Running, backend: Backend) -> None:
    backend.answers = [partial(1)]
    running.put(row(1))
    backend.wait_until(lambda: len(backend.accepted) == 1)
    running.put(row(2))
    backend.wait_until(lambda: len(backend.accepted) == 2)
    running.sender.stop(5)
    assert numbers(backend.accepted) == [1, 2]
    assert running.said == ["1 of the spans of one request were rejected: not these"]


def test_why_the_backend_takes_nothing_is_told_once_and_that_it_takes_spans_again(
    running: Running, backend: Backend
) -> None:
    backend.answers = [*[refused(grpc.StatusCode.UNAUTHENTICATED)] * 3, unavailable()]
    running.put(row(1))
    backend.wait_until(lambda: len(backend.accepted) == 1)
    running.put(row(2))
    running.sender.stop(5)
    assert running.problems == [
        "UNAUTHENTICATED: as the test says (see endpoint_token_file)",
        "UNAVAILABLE: as the test says",
        "",
    ]


def test_of_why_it_takes_nothing_no_more_is_told_than_is_to_be_stored(running: Running, backend: Backend) -> None:
    def verbose(context: grpc.ServicerContext) -> NoReturn:
        context.abort(grpc.StatusCode.UNAVAILABLE, "x" * 4000)
        raise AssertionError("abort raises")

    backend.answers = [verbose]
    running.put(row(1))
    running.sender.stop(20)
    assert running.problems == [f"UNAVAILABLE: {'x' * 4000}"[: sender_module.LONGEST_SAID], ""]


def test_that_the_backend_takes_spans_is_told_by_the_first_that_it_takes(running: Running, backend: Backend) -> None:
    running.put(row(1))
    running.sender.stop(5)
    assert running.problems == [""], "a former process may have told otherwise"


def test_details_that_are_no_retry_info_are_passed_over(running: Running, backend: Backend) -> None:
    def answer(context: grpc.ServicerContext) -> NoReturn:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff not protobuf"),))
        context.abort(grpc.StatusCode.UNAVAILABLE, "as the test says")
        raise AssertionError("abort raises")

    backend.answers = [answer]
    running.put(row(1))
    backend.wait_until(lambda: bool(backend.accepted))
    assert len(backend.seen) == 2


def test_a_warning_of_the_backend_is_logged_and_the_spans_count_as_taken(
    running: Running, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.answers = [partial(0)]
    running.put(row(1))
    running.sender.stop(5)
    assert running.acknowledged == [1]
    assert "warns: not these" in caplog.text


def test_an_https_endpoint_is_spoken_to_with_tls(database: Database, backend: Backend) -> None:
    sender = Sender(database.path, backend.endpoint.replace("http:", "https:"), lambda *_row: None, lambda _error: None)
    sender.start()
    database.commit(waiting(row(1)))
    sender.wake()
    sender.stop(0.5)
    assert backend.seen == [], "it takes no TLS, so it never sees a request"


def test_an_answer_that_is_not_protobuf_does_not_end_the_sending(running: Running, backend: Backend) -> None:
    backend.answers = [garbage]
    running.put(row(1))
    backend.wait_until(lambda: len(backend.accepted) == 1)
    running.put(row(2))
    backend.wait_until(lambda: len(backend.accepted) == 2)


def test_a_store_that_cannot_be_read_for_a_while_does_not_end_the_sending(
    running: Running, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    after, failures = OutboxReader.after, [True, True]

    def fails_twice(reader: OutboxReader, last: int, **bounds: Any) -> list[tuple[int, bytes]]:
        if failures:
            failures.pop()
            raise OSError("the disk is away")
        return after(reader, last, **bounds)

    monkeypatch.setattr(OutboxReader, "after", fails_twice)
    running.put(row(1))
    backend.wait_until(lambda: numbers(backend.accepted) == [1])


def test_a_request_is_never_larger_than_it_may_be(running: Running, backend: Backend) -> None:
    running.sender._limit = 10_000
    running.put(*(row(number, padding=1000) for number in range(30)))
    backend.wait_until(lambda: len(numbers(backend.accepted)) == 30)
    assert max(map(len, backend.accepted)) <= 10_000
    assert len(backend.accepted) == 4


def test_no_row_is_forgotten_however_wakes_and_looks_fall_together(running: Running, backend: Backend) -> None:
    for number in range(300):
        running.put(row(number))
        if number % 3 == 0:
            backend.wait_until(lambda number=number: len(numbers(backend.accepted)) == number + 1)  # type: ignore[misc]
    backend.wait_until(lambda: len(numbers(backend.accepted)) == 300)
    assert numbers(backend.accepted) == list(range(300))


def test_a_stop_sends_what_is_left(running: Running, backend: Backend) -> None:
    backend.answer = slow(0.02)
    for number in range(10):
        running.put(row(number))
    running.sender.stop(5)
    assert sorted(set(numbers(backend.accepted))) == list(range(10))
    assert running.acknowledged[-1] == 10


def test_a_stop_sends_what_came_while_the_sender_was_about_to_find_nothing(
    running: Running, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    after = OutboxReader.after
    found_nothing, may_go_on = threading.Event(), threading.Event()

    def slowly(reader: OutboxReader, last: int, **bounds: Any) -> list[tuple[int, bytes]]:
        rows = after(reader, last, **bounds)
        if not rows and not found_nothing.is_set():
            found_nothing.set()
            may_go_on.wait(5)
        return rows

    monkeypatch.setattr(OutboxReader, "after", slowly)
    running.sender.wake()
    assert found_nothing.wait(5)
    running.put(row(1))
    threading.Timer(0.2, may_go_on.set).start()
    running.sender.stop(5)
    assert numbers(backend.accepted) == [1]


def test_a_stop_with_nothing_left_does_not_wait(running: Running, backend: Backend) -> None:
    running.put(row(1))
    backend.wait_until(lambda: bool(backend.accepted))
    began = time.monotonic()
    running.sender.stop(30)
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("answer", [unavailable(30), slow(5)], ids=["refusing", "slow"])
def test_a_stop_ends_when_its_time_is_up_and_keeps_what_is_left(
    answer: Answer, running: Running, backend: Backend
) -> None:
    backend.answer = answer
    running.put(row(1))
    backend.wait_until(lambda: bool(backend.seen))
    began = time.monotonic()
    running.sender.stop(0.3)
    assert 0.3 <= time.monotonic() - began < 4.5
    assert running.acknowledged == []


def test_a_sender_that_was_never_started_can_be_stopped(database: Database, backend: Backend) -> None:
    Running(database, backend.endpoint).sender.stop(1)


def test_a_backend_that_comes_back_is_found_within_seconds(running: Running, backend: Backend) -> None:
    running.put(row(1))
    backend.wait_until(lambda: len(backend.accepted) == 1)
    backend.close()
    running.put(row(2))
    time.sleep(1)  # long enough for gRPC to have tried, and to have begun to wait
    opened = threading.Timer(0, backend.open)
    opened.start()
    opened.join()
    backend.wait_until(lambda: len(backend.accepted) == 2)
