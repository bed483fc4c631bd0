"""The worker: what it sends, when it tries again, what it drops, and when it ends."""

import contextvars
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from realtime_otel import contract, guard, transport, wire
from realtime_otel.contract import Direction, Fact
from realtime_otel.entries import EventEntry, FactEntry, LogEntry, Rank, Source
from realtime_otel.otlp import Answer, Outcome
from realtime_otel.packing import OVERHEAD
from realtime_otel.records import NO_COUNTS, RecordEncoder, ToolLog
from realtime_otel.transport import MAX_REQUEST_BYTES, Worker
from tests.unit.emitter.collector import AWAY, REFUSED, TAKEN, Collector, answers
from tests.unit.emitter.streams import attributes_of, stream_of

PATIENCE = 40.0


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_RETRY_SECONDS", (0.01, 0.05))
    monkeypatch.setattr(transport, "_LINGER_SECONDS", 0.01)


@contextmanager
def working(collector: Collector, max_bytes: int = 1 << 30) -> Iterator[Worker]:
    worker = Worker(lambda: collector, max_bytes=max_bytes)
    try:
        yield worker
    finally:
        worker.stop(time.monotonic() + transport.EXIT_SECONDS)


def opened(worker: Worker, name: str = "") -> Source:
    """A stream of the worker, with its first record."""
    source = Source(RecordEncoder(stream_of()), resource=wire.resource({"service.name": name}))
    worker.intake.put(FactEntry(source, Fact.STREAM_OPENED, {}, rank=Rank.KEPT))
    worker.open(source, lambda: close(worker, source))
    return source


def close(worker: Worker, source: Source) -> None:
    worker.close(source, FactEntry(source, Fact.STREAM_CLOSED, {}, rank=Rank.KEPT))


def put(worker: Worker, source: Source, count: int = 1, rank: Rank = Rank.EVENT, size: int = 0) -> None:
    for _ in range(count):
        event = {"type": "x", "list": [["a" * 9] * 9] * (size // 180)}
        worker.intake.put(EventEntry((source, event, 0, Direction.SERVER, NO_COUNTS), rank))


def accounted(records: list[LogRecord]) -> list[int]:
    """The sequence numbers of all records, and those that they state as dropped."""
    numbers = [attributes_of(record)[contract.SEQ] for record in records]
    for record in records:
        if record.event_name.endswith("records_dropped"):
            for first, last in json.loads(record.body.string_value)["ranges"]:
                numbers += range(first, last + 1)
    return sorted(numbers)


def test_everything_noted_is_sent_once_and_in_order() -> None:
    collector = Collector()
    with working(collector) as worker:
        source = opened(worker)
        put(worker, source, 2000)
        close(worker, source)
        assert worker.flush(PATIENCE)

    numbers = [attributes_of(record)[contract.SEQ] for record in collector.records]
    assert numbers == list(range(2002))
    assert collector.names[0] == "emitter.stream_opened"
    assert collector.names[-1] == "emitter.stream_closed"


def test_no_request_is_larger_than_a_mebibyte() -> None:
    collector = Collector()
    with working(collector) as worker:
        put(worker, opened(worker), 150, size=30_000)
        assert worker.flush(PATIENCE)

    assert len(collector.tried) > 2
    assert max(map(len, collector.tried)) <= MAX_REQUEST_BYTES
    assert max(map(len, collector.tried)) > MAX_REQUEST_BYTES / 2


def test_a_request_that_is_not_taken_now_is_sent_again_as_it_was() -> None:
    collector = Collector(answers(AWAY, AWAY, Answer(Outcome.LATER, "RESOURCE_EXHAUSTED", delay=0.01)))
    with working(collector) as worker:
        put(worker, opened(worker), 5)
        assert worker.flush(PATIENCE)

    assert len(collector.tried) >= 4
    assert collector.tried[0] == collector.tried[1] == collector.tried[3]
    assert accounted(collector.records) == list(range(7))


def test_an_outage_is_logged_once_with_where_it_is(caplog: pytest.LogCaptureFixture) -> None:
    with working(Collector(answers(AWAY, AWAY, AWAY))) as worker:
        opened(worker)
        assert worker.flush(PATIENCE)

    assert caplog.messages == [
        "realtime-otel: the collector at collector:4317 (without TLS) takes no records (UNAVAILABLE); keeping them"
    ]


def test_what_the_collector_refuses_is_stated_as_dropped() -> None:
    collector = Collector(answers(REFUSED))
    with working(collector) as worker:
        source = opened(worker)
        put(worker, source, 4)
        assert worker.flush(PATIENCE)
        put(worker, source)
        assert worker.flush(PATIENCE)

    assert accounted(collector.records) == list(range(7))
    assert "emitter.records_dropped" in collector.names


def test_a_collector_that_refuses_everything_is_not_asked_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    collector = Collector(lambda: REFUSED)
    with working(collector) as worker:
        close(worker, opened(worker))
        assert worker.flush(PATIENCE)
        assert worker.flush(PATIENCE)

    # The records, and the statement that they were dropped.
    assert len(collector.tried) == 2
    assert len(caplog.messages) == 1


def test_an_outage_drops_deltas_first_and_every_number_is_accounted_for() -> None:
    back = threading.Event()
    collector = Collector(lambda: TAKEN if back.is_set() else AWAY)
    with working(collector, max_bytes=1000 * OVERHEAD) as worker:
        source = opened(worker)
        for _ in range(40):
            put(worker, source, 50, rank=Rank.DELTA)
            put(worker, source, 5)
            until(lambda: not len(worker.intake))
        close(worker, source)
        back.set()
        assert worker.flush(PATIENCE)

    assert accounted(collector.records) == list(range(40 * 55 + 2))
    kinds = collector.names
    assert kinds.count("emitter.stream_opened") == kinds.count("emitter.stream_closed") == 1
    assert 200 <= kinds.count("x") < 2000
    # The deltas share their type with the events here; all two hundred events are there if only deltas are missing.
    kept = {attributes_of(record)[contract.SEQ] for record in collector.records}
    assert {1 + 55 * turn + 50 + event for turn in range(40) for event in range(5)} <= kept


def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread, as long as it takes; the test's own time limit ends it."""
    while not condition():
        time.sleep(0.001)


def test_a_silent_stream_says_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "HEARTBEAT_SECONDS", 0.05)
    collector = Collector()
    with working(collector) as worker:
        source = opened(worker)
        until(lambda: "emitter.heartbeat" in collector.names)
        close(worker, source)
        assert worker.flush(PATIENCE)
        beats = collector.names.count("emitter.heartbeat")
        # Closed, it is silent: nothing more is put for it.
        worker._beat()
        assert worker.flush(PATIENCE)

    assert collector.names.count("emitter.heartbeat") == beats
    assert accounted(collector.records) == list(range(len(collector.records)))


def test_a_talking_stream_says_nothing_of_the_kind() -> None:
    worker = Worker(Collector)
    source = opened(worker)
    worker._beat()

    assert len(worker.intake) <= 1
    close(worker, source)
    worker.stop(time.monotonic() + 1)


class Unspeakable(dict[str, object]):
    def get(self, *_arguments: object) -> object:
        raise RuntimeError("in the middle of encoding")


def test_an_event_that_cannot_be_encoded_is_stated_as_dropped() -> None:
    collector = Collector()
    with working(collector) as worker:
        source = opened(worker)
        put(worker, source)
        worker.intake.put(EventEntry((source, Unspeakable(type="x"), 0, Direction.SERVER, NO_COUNTS)))
        put(worker, source)
        assert worker.flush(PATIENCE)
        assert worker.flush(PATIENCE)

    assert accounted(collector.records) == list(range(5))


def test_a_client_that_cannot_be_made_is_made_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(guard, "_quiet", {})
    collector = Collector()
    attempts = []

    def connect() -> Collector:
        attempts.append(1)
        if len(attempts) < 3:
            raise ValueError("no such certificate")
        return collector

    worker = Worker(connect)
    opened(worker)
    assert worker.flush(PATIENCE)
    worker.stop(time.monotonic() + 1)

    assert accounted(collector.records) == [0, 1]
    (warning,) = caplog.messages
    assert "connecting as the OTEL_EXPORTER_OTLP_* variables say failed with ValueError" in warning


def test_streams_of_several_resources_and_loggers_share_a_request() -> None:
    collector = Collector()
    with working(collector) as worker:
        one = opened(worker, "one")
        opened(worker, "other")
        log = ToolLog(message="asked", severity_number=9, severity_text="INFO", call_id="call_1")
        worker.intake.put(LogEntry(one, log, "shop.orders"))
        assert worker.flush(PATIENCE)

    parts = {
        (resource.resource.attributes[0].value.string_value, scope.scope.name): len(scope.log_records)
        for resource in collector.taken[0].resource_logs
        for scope in resource.scope_logs
    }
    assert parts[("one", "shop.orders")] == 1
    assert {name for name, _ in parts} == {"one", "other"}


def test_the_thread_has_no_part_in_what_is_current_where_it_starts() -> None:
    mine = contextvars.ContextVar("mine", default="nothing")
    seen = []
    collector = Collector()
    collector.answer = lambda: seen.append((mine.get(), trace.get_current_span(), suppressed())) or TAKEN  # type: ignore[func-returns-value]

    def start() -> None:
        mine.set("something")
        with working(collector) as worker:
            opened(worker)
            assert worker.flush(PATIENCE)

    contextvars.copy_context().run(start)

    assert seen[0] == ("nothing", trace.INVALID_SPAN, True)


def suppressed() -> object:
    return otel_context.get_value(otel_context._SUPPRESS_INSTRUMENTATION_KEY)


def test_what_nobody_waits_for_any_longer_does_not_add_up() -> None:
    back = threading.Event()
    collector = Collector(lambda: TAKEN if back.is_set() else AWAY)
    with working(collector, max_bytes=300 * OVERHEAD) as worker:
        opened(worker)
        for _ in range(1000):
            assert not worker.flush(0)
            until(lambda: not len(worker.intake))
        held = len(worker._backlog)
        back.set()

    assert held <= 300


def test_streams_that_come_and_go_while_nobody_takes_them_do_not_add_up(caplog: pytest.LogCaptureFixture) -> None:
    back = threading.Event()
    collector = Collector(lambda: TAKEN if back.is_set() else AWAY)
    with working(collector, max_bytes=1000 * OVERHEAD) as worker:
        sources = [opened(worker) for _ in range(2000)]
        for source in sources:
            put(worker, source, 3)
            close(worker, source)
            until(lambda: len(worker.intake) < 100)
        until(lambda: not len(worker.intake))
        held = worker._backlog._bytes
        back.set()
        assert worker.flush(PATIENCE)

    assert held <= 750 * OVERHEAD
    assert "realtime-otel: too many streams wait for the collector; forgetting some" in caplog.messages
    # The last streams are whole, or say what they lack; of the first nothing is said.
    assert 0 < collector.names.count("emitter.stream_closed") < 1000


def test_a_destination_that_asks_for_a_day_is_asked_earlier_and_at_the_end_at_once() -> None:
    collector = Collector(answers(Answer(Outcome.LATER, "UNAVAILABLE", delay=86_400.0)))
    with working(collector) as worker:
        close(worker, opened(worker))
        until(lambda: bool(collector.tried))
        assert not worker.flush(0.1)

    assert collector.names == ["emitter.stream_opened", "emitter.stream_closed"]


def test_a_thread_whose_start_is_interrupted_is_no_second_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        monkeypatch.undo()
        raise KeyboardInterrupt

    collector = Collector()
    with working(collector) as worker:
        monkeypatch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            opened(worker)
        thread = worker._thread
        opened(worker)
        assert worker._thread is thread


def test_stopping_closes_what_is_open_and_sends_it() -> None:
    collector = Collector()
    with working(collector) as worker:
        opened(worker)
        opened(worker)

    assert collector.names.count("emitter.stream_closed") == 2
    assert collector.is_closed.is_set()


def test_stopping_does_not_wait_for_a_collector_that_never_answers(caplog: pytest.LogCaptureFixture) -> None:
    collector = Collector()
    collector.answer = lambda: (collector.is_closed.wait(60), AWAY)[1]
    worker = Worker(lambda: collector)
    opened(worker)
    until(lambda: bool(collector.tried))
    start = time.monotonic()

    worker.stop(start + 0.5)

    assert time.monotonic() - start < 20
    assert "realtime-otel: the collector did not take all records before the process ended" in caplog.messages
    assert not worker.flush(PATIENCE)


def test_an_abandoned_worker_takes_and_waits_for_nothing() -> None:
    collector = Collector()
    with working(collector) as worker:
        source = opened(worker)
        worker.abandon()

        assert source.closed
        assert not worker.flush(PATIENCE)


def test_streams_of_one_destination_share_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://one:4317")
    one = transport.worker()
    assert transport.worker() is one

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://other:4317")
    assert transport.worker() is not one


def test_a_failing_log_handler_of_the_application_ends_nothing() -> None:
    class Failing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("the application's own handler")

    handler = Failing()
    logging.getLogger("realtime_otel").addHandler(handler)
    try:
        collector = Collector(answers(AWAY, REFUSED))
        with working(collector) as worker:
            put(worker, opened(worker), 3)
            assert worker.flush(PATIENCE)
    finally:
        logging.getLogger("realtime_otel").removeHandler(handler)
