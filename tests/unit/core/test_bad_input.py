"""Bad input to the core: hostile bodies, times and numbers cost what they would have said, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

import pytest
from msgspec import Struct, structs

from realtime_otel.contract import Direction, Fact, Kind
from realtime_otel_sidecar.otlp.encode import encode_spans
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.bodies import DEEPEST, is_deeper
from realtime_otel_sidecar.stitch.events import TABLE
from realtime_otel_sidecar.stitch.order import MOST_RANGES, Order
from realtime_otel_sidecar.stitch.record import Record
from realtime_otel_sidecar.stitch.spans import Span
from realtime_otel_sidecar.stitch.stitcher import Stitcher
from tests.conversations import (
    SECOND,
    STARTED,
    STREAM_ID,
    closed,
    fact,
    numbered,
    opened,
    session,
    speech,
    spoken_answer,
    tool_call,
    weather_call,
)
from tests.fuzz.mutation import HOSTILE_JSON
from tests.fuzz.oracles import check_events, check_records

from .stitching import fed, one, span_id, spans_of

TALK: Final = [*opened(content=True), *session(), *speech("item_1"), *spoken_answer("resp_1", "item_2"), *closed()]
HERE: Final = "\0"
BEYOND_2262: Final = 2**63 - 1


def as_bytes(spans: list[Span]) -> bytes:
    return encode_spans(spans).SerializeToString()


def with_body(kind: str, body: str) -> list[Record]:
    """A short conversation, in which an event of this type has this text as its body."""
    *before, close = numbered(TALK, content=True)
    strange = structs.replace(close, type=kind, body=body, item_id="item_1", direction=Direction.SERVER.value)
    return [*before, strange, structs.replace(close, seq=close.seq + 1)]


# --- Bodies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TABLE)
def test_no_event_fails_on_any_hostile_body(kind: str) -> None:
    check_events("\n".join(f"{kind} {token}" for token in HOSTILE_JSON).encode())


def places(body: Any, depth: int = 6) -> Iterator[str]:
    """The JSON text of this body for each field that is read of it, with `HERE` as the field's value."""
    choices = get_args(body) if get_origin(body) in (Union, UnionType, Annotated) else (body,)
    yield HERE
    for choice in choices if depth else ():
        if get_origin(choice) in (Union, UnionType, Annotated):
            yield from places(choice, depth)
        elif get_origin(choice) is list:
            yield from (f"[{inside}]" for inside in places(get_args(choice)[0], depth - 1))
        elif isinstance(choice, type) and issubclass(choice, Struct):
            for member in structs.fields(choice):
                name = json.dumps(member.encode_name)
                yield from (f"{{{name}:{inside}}}" for inside in places(member.type, depth - 1))


BODIES = {kind: row.body for kind, row in TABLE.items() if row.body is not None}


@pytest.mark.parametrize("kind", BODIES)
def test_every_field_that_is_read_may_hold_a_value_of_any_kind(kind: str) -> None:
    found = sorted(set(places(BODIES[kind])))
    assert len(found) > len(structs.fields(BODIES[kind])), "each field, and the body itself"
    for token in ("null", "true", "-1", "1.5", str(2**64), '"\\u0000"', "[]", "[null]", "{}", '{"type":0}'):
        check_events("\n".join(f"{kind} {place.replace(HERE, token)}" for place in found).encode())


def nested(levels: int) -> str:
    """A description of a session that is nested so deep in all."""
    return '{"session":{"tools":' + "[" * (levels - 2) + "]" * (levels - 2) + "}}"


def called_from(depth: int, work: Callable[[], bytes]) -> bytes:
    return called_from(depth - 1, work) if depth else work()


@pytest.mark.parametrize("levels", [DEEPEST, DEEPEST + 1, 850, 900, 950, 1000, 100_000])
def test_how_deep_a_body_is_read_does_not_depend_on_who_calls(levels: int) -> None:
    records = with_body("session.updated", nested(levels))
    found = {called_from(depth, lambda: as_bytes(fed(records).spans)) for depth in (0, 50, 150)}
    assert len(found) == 1


@pytest.mark.parametrize(("levels", "unreadable"), [(DEEPEST, None), (DEEPEST + 1, 1), (100_000, 1)])
def test_a_body_that_is_nested_too_deep_is_counted_as_unreadable(levels: int, unreadable: int | None) -> None:
    found = one(fed(with_body("session.updated", nested(levels))).spans, "realtime_session")
    assert found.attributes.get(key.BODIES_UNREADABLE) == unreadable


@pytest.mark.parametrize(
    ("text", "deep"),
    [
        ("[" * DEEPEST + "]" * DEEPEST, False),
        ("[" * (DEEPEST + 1), True),
        ("{" * (DEEPEST + 1), True),
        ("[]" * 2 * DEEPEST, False),
        ('"' + "[" * 2 * DEEPEST + '"', False),
        ('"' + "[" * 2 * DEEPEST, False),
        ('"\\"' + "[" * 2 * DEEPEST + '"', False),
        ('"\\\\"' + "[" * 2 * DEEPEST, True),
        ('"\n\\\n"' + "[" * 2 * DEEPEST, True),
        ("[{" * DEEPEST + "}]" * DEEPEST, True),
    ],
)
def test_depth_is_that_of_brackets_outside_of_strings(text: str, deep: bool) -> None:
    assert is_deeper(text) is deep


# --- Ids ------------------------------------------------------------------------------------------------------------


def test_a_session_is_never_its_own_parent() -> None:
    stated = [structs.replace(record, parent_span_id=span_id(Kind.SESSION)) for record in numbered(TALK)]
    assert one(fed(stated).spans, "realtime_session").parent_span_id == b""


# --- Times ----------------------------------------------------------------------------------------------------------


JUMPS: Final[dict[str, Callable[[int], int]]] = {
    "each record before the one before it": lambda seq: STARTED - seq * SECOND,
    "an hour back and an hour ahead by turns": lambda seq: STARTED + (-1) ** seq * 3600 * SECOND,
    "a jump ahead by a year and back again": lambda seq: STARTED + (365 * 86400 * SECOND if seq == 5 else seq),
    "all at the same nanosecond": lambda _seq: STARTED,
    "the first nanosecond of 1970": lambda _seq: 1,
    "the last nanosecond that is taken": lambda _seq: BEYOND_2262,
    "from the last to the first": lambda seq: 1 if seq % 2 else BEYOND_2262,
}


@pytest.mark.parametrize("started", [0, 1, STARTED, BEYOND_2262])
@pytest.mark.parametrize("time", JUMPS.values(), ids=JUMPS)
def test_under_any_clock_no_span_ends_before_it_starts_and_nothing_is_lost(
    time: Callable[[int], int], started: int
) -> None:
    records = [
        structs.replace(record, time=time(record.seq), started=max(started, time(record.seq) - 3600 * SECOND))
        for record in numbered(weather_call())
    ]
    check_records(records, at=7)
    outcome = fed(records)
    assert outcome.rejected == []
    assert {span.span_id for span in outcome.spans} >= {span.span_id for span in spans_of(weather_call())}


# --- Numbers --------------------------------------------------------------------------------------------------------


def test_a_number_that_comes_again_with_other_contents_is_a_duplicate_and_the_first_counts() -> None:
    records = numbered(TALK)
    others = numbered(tool_call("resp_9", "call_9"))
    false = [structs.replace(other, seq=number) for number, other in enumerate(others)]

    outcome = fed([each for number, record in enumerate(records) for each in (record, *false[number : number + 1])])

    assert as_bytes(outcome.spans) == as_bytes(fed(records).spans)
    assert outcome.duplicates == len(false)


@pytest.mark.parametrize("seq", [2**31, 2**53, 2**63 - 2, 2**63 - 1])
def test_a_number_that_no_emitter_reaches_costs_the_records_that_it_leaves_out(seq: int) -> None:
    *before, close = numbered(TALK)
    records = [*before, structs.replace(close, seq=seq)]
    check_records(records, at=len(before))

    stitcher = Stitcher()
    assert fed(records, stitcher=stitcher).rejected == []
    (ended,) = (span for span in stitcher.tick(STREAM_ID).spans if span.name.startswith("realtime_session"))
    assert ended.attributes[key.RECORDS_MISSING] == seq - len(before)


def test_of_ranges_that_were_stated_only_the_nearest_are_remembered() -> None:
    ranges = [[10 * number, 10 * number + 5] for number in range(1, 2 * MOST_RANGES)]
    order = Order()
    (statement,) = numbered([fact(Fact.RECORDS_DROPPED)])
    for seq, part in enumerate([ranges[1::2], ranges[::2]]):
        order.offer(structs.replace(statement, seq=seq, body=json.dumps({"ranges": part})))
    (lane,) = order.lanes.values()
    assert lane.stated[::-1] == [tuple(each) for each in ranges[:MOST_RANGES]]


def test_many_gaps_are_given_up_in_their_order() -> None:
    beat = numbered([fact(Fact.HEARTBEAT)])[0]
    records = [structs.replace(beat, seq=2 * number + 1) for number in range(5000)]
    check_records(records, at=2500)
    stitcher = Stitcher()
    fed(reversed(records), stitcher=stitcher)
    (ended,) = stitcher.tick(STREAM_ID).spans
    assert (ended.attributes[key.RECORDS], ended.attributes[key.RECORDS_MISSING]) == (5000, 5000)


# --- Very much ------------------------------------------------------------------------------------------------------


def test_of_what_has_left_a_stream_keeps_little() -> None:
    def state_after(turns: int) -> int:
        stitcher = Stitcher()
        steps = [step for number in range(turns) for step in spoken_answer(f"resp_{number}", f"item_{number}")]
        fed(numbered([*opened(), *steps]), stitcher=stitcher)
        return len(stitcher.snapshot(STREAM_ID))

    few, many = state_after(100), state_after(1100)
    assert (many - few) / 1000 < 250, "bytes of a response that has settled, with its item"
