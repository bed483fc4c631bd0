"""What the sidecar counts of itself: by whom, when, and what an instrument makes of it."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest

from docs.generate.telemetry import REASONS
from realtime_otel.contract import Fact
from realtime_otel_sidecar import deliveries
from realtime_otel_sidecar.checks.probe import SPANS, make_probe
from realtime_otel_sidecar.config import MIB, Settings
from realtime_otel_sidecar.counters import LIMITS, Completeness, Departure, Letter, kind_of
from realtime_otel_sidecar.deliveries import Deliveries
from realtime_otel_sidecar.otlp.receiver import Receiver
from realtime_otel_sidecar.refusals import Unavailable, Why
from realtime_otel_sidecar.stitch.stitcher import Rejection
from realtime_otel_sidecar.store.rows import DeadLetter, Delivered, OutboxRow
from realtime_otel_sidecar.telemetry.instruments import INSTRUMENTS, LABELS, PREFIX, Kind
from realtime_otel_sidecar.telemetry.latencies import ERROR_TYPE, Latencies, Latency, error_type
from realtime_otel_sidecar.telemetry.sources import Sources
from tests import conversations as talk
from tests.sidecar import Backend, Client, Judge, conversation, one_by_one, partial, record, refused
from tests.unit.sidecar.rig import Rig, core_spans, eventually, sender_of

SECOND = 1_000_000_000


class Recorded:
    """Takes what latencies record."""

    def __init__(self, latency: Latency) -> None:
        self.values: list[tuple[float, dict[str, str]]] = []
        latency.record = lambda seconds, labels: self.values.append((seconds, dict(labels)))


def sources(rig: Rig) -> Sources:
    receiver = Receiver(Settings(listen="127.0.0.1:0"), lambda _pending: None)
    return Sources(rig._settings, rig.engine, receiver)


def observed(rig: Rig) -> dict[str, dict[tuple[str, ...], float]]:
    """What each instrument tells, by the values of its labels."""
    of = sources(rig)
    return {
        each.name.removeprefix(PREFIX): {tuple(labels.values()): value for labels, value in each.values(of)}
        for each in INSTRUMENTS
    }


# --- The table --------------------------------------------------------------------------------------------------------


def test_names_are_one_of_a_kind_and_say_what_is_counted_in_the_singular() -> None:
    names = [each.name for each in INSTRUMENTS]
    assert len(names) == len(set(names))
    for each in INSTRUMENTS:
        assert each.brief.endswith(".")
        assert set(each.labels) <= LABELS.keys()
        assert bool(each.bounds) == bool(each.latency) == (each.kind is Kind.HISTOGRAM) == (each.read is None)
        assert not each.latency or hasattr(Latencies(), each.latency)
    assert {each.latency for each in INSTRUMENTS if each.latency} == set(Latencies.__slots__), "each is told of"


def test_all_values_of_each_label_are_there_before_anything_has_happened(tmp_path: Path) -> None:
    with Rig(tmp_path / "data") as rig:
        told = observed(rig)
    for name, kinds in REASONS.items():
        found = {values[0] if values else "" for values in told[name]}
        assert found >= {member.value for kind in kinds for member in kind}, name
    assert {name for (name,) in told["limit.reached"]} == set(LIMITS)
    assert {name for (name,) in told["session.ended"]} == set(Completeness)
    counters = {each.name.removeprefix(PREFIX) for each in INSTRUMENTS if each.kind is Kind.COUNTER}
    for name in counters - {"process.cpu.time"}:
        assert not any(told[name].values()), name


def test_nothing_is_told_but_numbers(tmp_path: Path) -> None:
    with Rig(tmp_path / "data") as rig:
        rig.take(*one_by_one(conversation("one")))
        for name, values in observed(rig).items():
            assert all(type(value) in (int, float) for value in values.values()), name


# --- Records and sessions ---------------------------------------------------------------------------------------------


def test_records_are_counted_by_what_became_of_them(tmp_path: Path) -> None:
    whole = conversation("whole")
    steps = [*talk.opened(), talk.fact(Fact.RECORDS_DROPPED, ranges=[[2, 4]]), *[talk.fact(Fact.HEARTBEAT)] * 4]
    dropped = record([*steps, *talk.closed()], "dropped")
    with Rig(tmp_path / "data", gap_wait=0.05) as rig:
        rig.take(whole.request(), whole.request(3, 5))
        rig.take(dropped.request(0, 2), dropped.request(5))
        rig.take(conversation("gap").request(0, 3), conversation("gap").request(5))
        told = observed(rig)
    sent = len(whole.records) + 2 + len(dropped.records) - 3 + len(conversation("gap").records) - 2
    assert told["record.received"] == {(): sent}
    assert told["record.duplicate"] == {(): 2}
    assert told["record.missing"] == {(): 2}
    assert told["record.dropped"] == {(): 3}
    assert told["session.ended"] == {("complete",): 1, ("dropped",): 1, ("missing",): 1}


def test_lines_that_no_span_has_are_counted(tmp_path: Path) -> None:
    steps: talk.Conversation = [*talk.opened(), talk.Logged("of nobody", "call_unseen"), *talk.closed()]
    with Rig(tmp_path / "data") as rig:
        rig.take(record(steps, "stream").request(), conversation("one", turns=2).request())
        assert observed(rig)["log.late"] == {(): 1}


def test_what_was_missing_in_one_session_is_not_missing_in_the_next_of_its_stream(tmp_path: Path) -> None:
    """Under a chosen id, one order goes on over several sessions."""
    first = conversation("call", turns=1, chosen=True)
    late = talk.STARTED + 3600 * SECOND
    again = conversation("call", turns=1, chosen=True, started=late)
    other = again.request().replace(b"of-call", b"of-2all")  # another emitter, as each connection has
    with Rig(tmp_path / "data", gap_wait=0.05, resume_wait=0.05) as rig:
        rig.take(first.request(0, 3), first.request(4))
        rig.take(other)
        eventually(lambda: sum(rig.engine.counters.sessions_ended.values()) == 2)
        assert rig.engine.counters.records_missing == 1
        assert rig.engine.counters.sessions_ended == {Completeness.MISSING: 1, Completeness.COMPLETE: 1}


def test_a_probe_is_no_agent(tmp_path: Path) -> None:
    """Else a check that runs each minute would hide that no agent sends anything, or that all sessions are torn."""
    probe = make_probe()
    with Rig(tmp_path / "data") as rig:
        began = rig.engine.counters.heard
        rig.take(probe.request)
        assert rig.engine.counters.heard == began
        assert rig.engine.counters.sessions_ended.total() == 0
        assert rig.engine.counters.spans_settled == SPANS
        rig.take(probe.request + conversation("one").request())
        assert rig.engine.counters.heard > began
        assert rig.engine.counters.sessions_ended == {Completeness.COMPLETE: 1}


def test_a_restart_counts_nothing_of_what_it_takes_up(tmp_path: Path) -> None:
    requests = one_by_one(conversation("one"))
    with Rig(tmp_path / "data") as rig:
        rig.take(*requests[:5], *requests[:2])
        crashed = rig.crash(tmp_path / "crashed")
    with Rig(crashed) as rig:
        counters = rig.engine.counters
        assert (counters.records, counters.records_duplicate, counters.spans_settled) == (0, 0, 0)
        assert observed(rig)["stream.count"] == {(): 1}
        assert rig.engine.recovery_seconds > 0


# --- Spans ------------------------------------------------------------------------------------------------------------


def test_spans_are_counted_by_what_became_of_them(tmp_path: Path) -> None:
    request = conversation("one").request()
    spans = len(core_spans([request]))
    with Backend() as backend, Rig(tmp_path / "data") as rig:
        sender = sender_of(rig, backend)
        try:
            backend.answers = [partial(2)]
            rig.take(request)
            exported = rig.engine.counters.spans_exported
            eventually(lambda: exported[Departure.TAKEN] + exported[Departure.REJECTED] == spans)
            assert exported[Departure.REJECTED] == 2
            bad = conversation("bad", turns=1).request()
            ours = len(core_spans([bad]))
            backend.judge = refusing(b"bad")
            rig.take(bad)
            rig.take(conversation("good").request())  # which shows that the collector takes others
            eventually(lambda: exported[Departure.REFUSED] == ours)
            eventually(lambda: exported[Departure.TAKEN] == 2 * spans - 2)
            assert rig.engine.counters.dead_letters == {Letter.REFUSED_BY_COLLECTOR: ours}
        finally:
            sender.stop(0)


def refusing(text: bytes) -> Judge:
    """Refuses for good whatever has this text in it."""
    refuse = refused(grpc.StatusCode.INVALID_ARGUMENT)
    return lambda data, context: refuse(context) if text in data else b""


def delivered(at: float, *taken: float) -> list[Delivered]:
    return [Delivered(round(at * SECOND), round(each * SECOND), 1) for each in taken]


def put(*rows: tuple[float, float]) -> list[OutboxRow]:
    """Rows that were taken in at one time, and whose first span has ended at another."""
    return [OutboxRow(round(taken * SECOND), 1, b"", ended=round(ended * SECOND)) for taken, ended in rows]


def test_of_what_was_sent_together_the_oldest_tells_how_old_spans_are() -> None:
    latencies = Latencies()
    since_settled, since_ended = Recorded(latencies.delivery), Recorded(latencies.span)
    ages = Deliveries(latencies)
    ages.note(put((10, 8), (10, 7), (11, 9.5), (12, 11)), [])
    ages.note([], delivered(13, 10, 10, 11) + delivered(20, 12))
    assert [value for value, _ in since_settled.values] == [3, 8]
    assert [value for value, _ in since_ended.values] == [6, 9]


def test_of_rows_of_an_earlier_process_and_of_held_ones_the_wait_is_what_is_known() -> None:
    latencies = Latencies()
    since_ended = Recorded(latencies.span)
    ages = Deliveries(latencies)
    ages.note(put((10, 8)), delivered(12, 3))
    ages.note([], delivered(13, 9) + delivered(14, 10))
    assert [value for value, _ in since_ended.values] == [9, 4, 6]


def test_a_long_outage_costs_no_memory_and_no_clock_makes_a_span_younger_than_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deliveries, "MOST_WAITING", 3)
    latencies = Latencies()
    since_ended = Recorded(latencies.span)
    ages = Deliveries(latencies)
    ages.note(put(*((at, at - 1) for at in range(10, 20))), [])
    assert len(ages._waiting) == 3
    ages.note([], delivered(5, *range(10, 20)))
    assert [value for value, _ in since_ended.values] == [0]


# --- What goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("too_late", "too_late"),
        ("after_close", "after_close"),
        ("refused by the collector: INVALID_ARGUMENT: no", "refused_by_collector"),
        ("a span cannot be encoded: ValueError()", "unencodable_span"),
        ("a journal row cannot be read: truncated", "unreadable_journal"),
        ("a state cannot be read: truncated", "unreadable_state"),
        ("a state cannot be read", "unreadable_state"),
        ("it has no trace id", "contract"),
    ],
)
def test_dead_letters_are_of_few_kinds_whatever_their_reasons_say(reason: str, kind: str) -> None:
    assert kind_of(DeadLetter(1, reason, "", b"")) == kind
    assert kind in {*Letter, *Rejection}


def test_an_error_is_told_by_the_shortest_name_that_it_has() -> None:
    with pytest.raises(sqlite3.OperationalError) as raised:
        sqlite3.connect(":memory:").execute("no SQL")
    assert error_type(raised.value) == "SQLITE_ERROR"
    assert error_type(Unavailable("later", why=Why.OUTBOX_FULL)) == "outbox_full"
    assert error_type(ValueError("closed")) == "ValueError"
    with Client(9) as nowhere, pytest.raises(grpc.RpcError) as failed:
        nowhere.send(b"")
    assert error_type(failed.value) == "UNAVAILABLE"


def test_a_commit_that_fails_is_told_with_the_error_and_the_next_without(tmp_path: Path) -> None:
    latencies = Latencies()
    commits = Recorded(latencies.commit)
    with Rig(tmp_path / "data") as rig:
        rig.engine._latencies = latencies
        commit = rig.database.commit
        failing = True

        def maybe(batch: Any) -> list[Delivered]:
            if failing:
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorname, error.sqlite_errorcode = "SQLITE_FULL", sqlite3.SQLITE_FULL
                raise error
            return commit(batch)

        rig.database.commit = maybe  # type: ignore[method-assign]
        with pytest.raises(Unavailable) as told:
            rig.take(conversation("one").request())
        assert told.value.why is Why.DISK_UNWRITABLE
        failing = False
        eventually(lambda: rig.engine.serving)
    labels = [label for _, label in commits.values]
    assert labels[0] == {ERROR_TYPE: "SQLITE_FULL"}
    assert {} in labels


@pytest.mark.parametrize(("outbox_mib", "why"), [(1, Why.OUTBOX_FULL), (64, Why.DISK_FULL)])
def test_a_full_outbox_is_told_from_a_full_disk(outbox_mib: int, why: Why, tmp_path: Path) -> None:
    with Rig(tmp_path / "data", outbox_mib=outbox_mib) as rig:
        rig.database.sizes = rig.database.sizes.__class__(outbox_rows=1, outbox_bytes=2 * MIB)
        rig.engine._bounds.capacity = MIB
        with pytest.raises(Unavailable) as raised:
            raise rig.engine._reason()
        assert raised.value.why is why
        rig.database.sizes = rig.database.sizes.__class__()


# --- Many at a time ---------------------------------------------------------------------------------------------------


def test_reading_disturbs_nobody_and_is_not_disturbed(tmp_path: Path) -> None:
    """The instruments are read by a thread of their own while streams open, change and end."""
    with Rig(tmp_path / "data", max_streams=20, max_streams_per_service=10) as rig:
        of, ended, failures = sources(rig), threading.Event(), list[BaseException]()

        def read() -> None:
            try:
                while not ended.is_set():
                    for each in INSTRUMENTS:
                        list(each.values(of))
            except BaseException as error:
                failures.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        for number in range(150):
            rig.take(record(talk.opened(), f"s-{number}", service=f"service-{number % 30}").request())
            rig.take(conversation(f"whole-{number}", turns=1).request(0 if number % 2 else 1))
        ended.set()
        reader.join()
    assert failures == []
