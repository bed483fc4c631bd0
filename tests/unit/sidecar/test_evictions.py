"""Too much of what is open: who loses a stream, that nobody else notices, and that a crash changes nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from realtime_otel import contract
from realtime_otel.contract import Kind
from realtime_otel_sidecar import bounds, conversations, counters, journal
from realtime_otel_sidecar.shares import Bound
from realtime_otel_sidecar.stitch.stitcher import Stitcher
from tests.conversations import Conversation, Logged, Step, call_complete, opened, server
from tests.sidecar import Recording, conversation, interleaved, one_by_one, record
from tests.unit.sidecar.rig import Rig, eventually, open_streams, outbox, stitched

QUIET = conversation("quiet", turns=3)
KIB = 1024


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings in MiB are in KiB, so that little is much, and the log is not held back."""
    monkeypatch.setattr(conversations, "MIB", KIB)
    monkeypatch.setattr(bounds, "LOOK_SECONDS", 0.0)


def beginning(name: str, service: str = "noisy", records: int = 2) -> bytes:
    return conversation(name, service=service).request(0, records)


def growing(name: str, service: str = "noisy", kibibytes: int = 40) -> Recording:
    """A stream without its beginning: what comes waits for it, about a kibibyte each."""
    steps: list[Step] = [*opened(), *(server("odd.event", text="x" * 480) for _ in range(kibibytes))]
    whole = record(steps, name, service=service)
    return Recording(whole.stream, whole.resource, whole.records[1:])


def session_of(name: str) -> tuple[bytes, bytes]:
    return contract.trace_id(name), contract.span_id(Kind.SESSION, name)


# --- Each bound -----------------------------------------------------------------------------------------------------

STATE: dict[str, Any] = {"max_stream_mib": 30, "max_state_mib_per_service": 60, "max_state_mib": 100}
ROOM: dict[str, Any] = {"max_stream_mib": 500, "max_state_mib_per_service": 5000, "max_state_mib": 5000}


@pytest.mark.parametrize(
    ("bound", "settings", "requests", "goes"),
    [
        (
            Bound.MAX_STREAMS_PER_SERVICE,
            ROOM | {"max_streams_per_service": 2},
            [beginning("a"), beginning("b"), beginning("other", "other"), beginning("a", records=3), beginning("c")],
            "b",
        ),
        (
            Bound.MAX_STREAMS,
            ROOM | {"max_streams": 3, "max_streams_per_service": 3},
            [beginning("a"), beginning("b"), beginning("other", "other"), beginning("third", "third")],
            "a",
        ),
        (Bound.MAX_STREAM, STATE, [beginning("a"), growing("large").request()], "large"),
        (
            Bound.MAX_STATE_PER_SERVICE,
            STATE,
            [growing(name, kibibytes=size).request() for name, size in (("a", 15), ("b", 28), ("c", 22))],
            "b",
        ),
        (
            Bound.MAX_STATE,
            STATE,
            [
                growing(name, name[0], size).request()
                for name, size in (("a1", 14), ("b1", 15), ("a2", 28), ("b2", 22), ("c1", 29))
            ],
            "a2",
        ),
    ],
    ids=["streams of a service", "streams", "a stream", "state of a service", "state"],
)
def test_each_bound_ends_the_stream_that_it_is_about_and_refuses_no_request(
    bound: Bound, settings: dict[str, Any], requests: list[bytes], goes: str, tmp_path: Path
) -> None:
    with Rig(tmp_path / "data", **settings) as rig:
        rig.take(*requests[:-1])
        before = open_streams(rig)
        assert rig.engine.counters.streams_evicted.total() == 0
        rig.take(requests[-1])
        assert before - open_streams(rig) == {goes} & before, "nobody else"
        assert goes not in open_streams(rig)
        assert rig.engine.counters.streams_evicted == {bound: 1}
        assert rig.rows("SELECT count(*) FROM journal WHERE kind = 'evict'") == [(1,)]
        assert b"evicted" in dict(outbox(rig.folder))[session_of(goes)]


# --- The others -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool_logs", [False, True])
def test_a_line_that_a_tool_logs_ends_no_stream_however_long_it_is(tool_logs: bool, tmp_path: Path) -> None:
    lines = [Logged("x" * 200 * KIB, call, numbered=False) for call in ("call_1", "call_unknown")]
    steps: Conversation = [*opened(), *call_complete("resp_1", "call_1"), *lines]
    with Rig(tmp_path / "data", **STATE, tool_logs=tool_logs, max_attribute_length=1000) as rig:
        rig.take(*one_by_one(record(steps, "stream")))
        assert open_streams(rig) == {"stream"}


@pytest.mark.parametrize(
    ("noise", "settings"),
    [
        (
            [b"".join(beginning(f"{number}-{part}") for part in range(40)) for number in range(20)],
            ROOM | {"max_streams": 100, "max_streams_per_service": 50},
        ),
        (
            [b"".join(beginning(f"{number}-{part}", f"{number}-{part}") for part in range(40)) for number in range(20)],
            ROOM | {"max_streams": 100, "max_streams_per_service": 50},
        ),
        (one_by_one(growing("giant", kibibytes=600), size=30), STATE),
        ([growing(f"large-{number}", kibibytes=25).request() for number in range(20)], STATE),
    ],
    ids=["streams without end", "services without end", "a stream without end", "large streams without end"],
)
def test_a_quiet_service_next_to_a_noisy_one_notices_nothing(
    noise: list[bytes], settings: dict[str, Any], tmp_path: Path
) -> None:
    quiet = one_by_one(QUIET)
    with Rig(tmp_path / "data", **settings) as rig:
        for number, request in enumerate(noise):
            rig.take(request, *quiet[number : number + 1])
            shares = rig.engine._conversations.shares
            assert len(shares) <= settings.get("max_streams", 10_000)
            assert shares.size <= settings["max_state_mib"] * KIB
        rig.take(*quiet[len(noise) :])
        found = {key: {data} for key, data in outbox(rig.folder) if key[0] == contract.trace_id("quiet")}
        assert rig.engine.counters.streams_evicted.total() > 0
        assert "agent-quiet" not in rig.engine.counters.streams_evicted_of
    assert found == stitched(quiet)


def test_what_comes_for_a_stream_that_was_evicted_opens_nothing_and_is_kept(tmp_path: Path) -> None:
    with Rig(tmp_path / "data", max_streams_per_service=1) as rig:
        rig.take(beginning("a"), beginning("b"), conversation("a", service="noisy").request())
        assert open_streams(rig) == {"b"}
        assert {reason for reason, _ in rig.database.dead_letters()} == {"after_close"}
        found = outbox(rig.folder)
        assert len(found) == len(dict(found))


# --- Crash and restart ----------------------------------------------------------------------------------------------


def crowd() -> list[bytes]:
    """Streams of one service and of others, so many and so large that some have to go now and then."""
    noisy = [conversation(f"noisy-{number}", turns=1, service="noisy") for number in range(4)]
    return interleaved([*noisy, growing("giant", kibibytes=45), QUIET, conversation("other", turns=1)], size=7)


@pytest.mark.parametrize("rows", [4, 10_000], ids=["checkpointed", "journal alone"])
def test_a_crash_after_any_request_evicts_nobody_else(
    rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "JOURNAL_ROWS", rows)
    settings: dict[str, Any] = {"max_streams": 5, "max_streams_per_service": 4} | STATE
    requests = crowd()
    kinds = set[str]()
    with Rig(tmp_path / "data", **settings) as first:
        folders = []
        for position, request in enumerate(requests):
            first.take(request)
            kinds |= {kind for (kind,) in first.rows("SELECT kind FROM journal")}
            folders.append(first.crash(tmp_path / f"crash-{position}"))
        wanted, counted = outbox(first.folder), first.engine.counters.streams_evicted
        assert counted[Bound.MAX_STREAM]
        assert counted.total() >= 3
    assert kinds == {"request", "evict"}
    for position, folder in enumerate(folders):
        before = outbox(folder)
        with Rig(folder, **settings) as second:
            assert outbox(folder) == before, "nothing is decided by a start"
            second.take(*requests[position:])  # the answer to the last one may have been lost
            found = outbox(second.folder)
        assert sorted(found) == sorted(wanted)


def test_a_start_with_lower_bounds_ends_what_is_too_much_then(tmp_path: Path) -> None:
    with Rig(tmp_path / "data") as rig:
        rig.take(*(beginning(f"s-{number}") for number in range(6)))
        folder = rig.crash(tmp_path / "crash")
    for each in (folder, tmp_path / "data"):  # from the journal, and from the checkpoints of a clean stop
        with Rig(each, max_streams_per_service=2) as rig:
            eventually(lambda rig=rig: open_streams(rig) == {"s-4", "s-5"})  # type: ignore[misc]
            eventually(lambda rig=rig: rig.engine.counters.streams_evicted_of == {"noisy": 4})  # type: ignore[misc]
    with Rig(folder, max_streams_per_service=2) as rig:
        assert open_streams(rig) == {"s-4", "s-5"}


def test_sizes_are_known_after_a_restart(tmp_path: Path) -> None:
    with Rig(tmp_path / "data", **ROOM) as rig:
        rig.take(growing("a").request(), beginning("b"))
        known = rig.engine._conversations.shares.size
        folder = rig.crash(tmp_path / "crash")
    with Rig(folder, **ROOM) as rig:
        assert rig.engine._conversations.shares.size == known > 40 * KIB
    with Rig(tmp_path / "data", **ROOM) as rig:
        assert rig.rows("SELECT sum(length(state)) FROM checkpoints") == [(rig.engine._conversations.shares.size,)]
        assert rig.engine._conversations.shares.size > 25 * KIB


def test_a_stream_on_whose_eviction_the_core_fails_is_not_tried_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = stitched([QUIET.request()])
    monkeypatch.setattr(Stitcher, "evict", lambda _core, _key: 1 // 0)
    with Rig(tmp_path / "data", max_streams_per_service=1) as rig:
        rig.take(beginning("a"), beginning("b"), *one_by_one(QUIET))
        assert rig.rows("SELECT count(*) FROM journal WHERE kind = 'evict'") == [(1,)]
        assert {key: {data} for key, data in outbox(rig.folder)} == wanted
    assert not rig.engine.failed, "also when all is checkpointed"


# --- The log and the counters ---------------------------------------------------------------------------------------


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if "were ended" in each.getMessage()]


def test_the_log_says_once_a_minute_which_service_has_lost_how_many(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING)
    with Rig(tmp_path / "data", max_streams_per_service=2) as rig:
        rig.take(b"".join(beginning(f"s-{number}") for number in range(9)))
        eventually(lambda: bool(warnings(caplog)))
        rig.take(*(beginning(f"t-{number}") for number in range(5)), *(beginning(f"u-{n}", "third") for n in range(3)))
        eventually(lambda: len(warnings(caplog)) == 2)
        monkeypatch.setattr(bounds, "SAY_SECONDS", 0.0)
        eventually(lambda: len(warnings(caplog)) == 3)
    told = "streams of '{}' were ended, because there was no room for them: {} by max_streams_per_service"
    assert warnings(caplog) == [
        f"7 {told.format('noisy', 7)}",
        f"1 {told.format('third', 1)}",
        f"5 {told.format('noisy', 5)}",
    ]


def test_services_are_counted_by_their_names_up_to_a_number_of_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(counters, "SERVICES", 3)
    with Rig(tmp_path / "data", max_streams=1, max_streams_per_service=1) as rig:
        rig.take(*(beginning(f"s-{number}", f"{number}" * 500) for number in range(8)))
        counted = rig.engine.counters.streams_evicted_of
        assert counted == {"0" * 80: 1, "1" * 80: 1, "2" * 80: 1, counters.OTHERS: 4}
        assert rig.engine.counters.streams_evicted == {Bound.MAX_STREAMS: 7}
    assert max(map(len, warnings(caplog))) < 250
