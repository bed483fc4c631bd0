"""What stands on spans, links and span events is what the registry and the documentation say, and all of it occurs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from docs.generate.attributes import LINKS, SPANS, is_content
from docs.generate.states import CLOSES
from realtime_otel.contract import Fact
from realtime_otel_sidecar.replay import replay
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch import session as core
from realtime_otel_sidecar.stitch.attributes import ATTRIBUTES
from realtime_otel_sidecar.stitch.events import Does
from realtime_otel_sidecar.stitch.record import Record
from realtime_otel_sidecar.stitch.rules import Limits, Rules
from realtime_otel_sidecar.stitch.spans import Attributes, CloseReason, Span, Value
from realtime_otel_sidecar.stitch.state import State
from realtime_otel_sidecar.stitch.stitcher import Stitcher
from tests.conversations import (
    RECORDINGS,
    STREAM_ID,
    Conversation,
    Logged,
    Step,
    call_complete,
    closed,
    committed,
    fact,
    later,
    numbered,
    opened,
    output_item,
    response_created,
    response_done,
    server,
    session,
    speech,
    stream,
    transcript,
    weather_call,
)

from .stitching import add, fed

SCENARIOS: Final = Path(__file__).parents[2] / "scenarios" / "streams"
RULES: Final = Rules(tool_logs=True)


# --- Conversations --------------------------------------------------------------------------------------------------


def played(response: str) -> list[Step]:
    return [server("output_audio_buffer.started", response_id=response)]


def unfinished_call(status: str, reason: str = "") -> list[Step]:
    """A response that ends before the call that it has announced is complete."""
    return [
        *response_created("resp_1"),
        *output_item("resp_1", "item_call", type="function_call", call_id="call_1", name="get_tide"),
        *response_done("resp_1", status, status_details={"type": status, "reason": reason}),
        *closed(),
    ]


OPEN: Final = [
    *session(),
    server("input_audio_buffer.speech_started", item_id="item_1"),
    *response_created("resp_1", model="gpt-realtime-2"),
    *call_complete("resp_1", "call_1"),
    *played("resp_1"),
]
"""A span of each kind is open."""

WRITTEN: Final[dict[str, Conversation]] = {
    "a whole conversation": weather_call(),
    "a tool that logs": [*response_created("resp_1"), *call_complete("resp_1", "call_1"), Logged("low", "call_1")],
    "closed with all open": [*OPEN, *closed()],
    "disconnected with all open": [*OPEN, *closed("disconnected", code=1006)],
    "silent with all open": OPEN,
    "one playback after another": [*played("resp_1"), *played("resp_2"), *closed()],
    "a call that the user cut": unfinished_call("cancelled", "turn_detected"),
    "a call that the client cancelled": unfinished_call("cancelled", "client_cancelled"),
    "a call of a response that failed": unfinished_call("failed"),
    "a call that was not made": unfinished_call("completed"),
    "push to talk, played by the service": [
        server("session.created", session={"id": "sess_1", "audio": {"input": {"turn_detection": None}}}),
        *committed("item_1"),
        *response_created("resp_1"),
        *played("resp_1"),
    ],
    "another model transcribes": [
        *session(transcription="whisper-1"),
        *speech("item_1"),
        server("session.updated", session={"audio": {"input": {"transcription": {"model": "whisper-2"}}}}),
    ],
    "limits without a response": [
        server("rate_limits.updated", rate_limits=[{"name": "tokens", "limit": 9, "remaining": 4, "reset_seconds": 1}]),
    ],
    "a playback that was joined": [server("output_audio_buffer.stopped", response_id="resp_1")],
    "cut by the client": [
        *response_created("resp_1"),
        *output_item("resp_1", "item_1"),
        fact(Fact.AUDIO_INTERRUPTED, item_id="item_1", played_ms=300),
    ],
    "a transcription that failed late": [
        *speech("item_1"),
        *later(20, transcript("item_1", "failed", error={"code": "busy"}, usage={"type": "duration", "seconds": 1.5})),
    ],
}
"""What no scenario shows, and a whole conversation."""

STREAMS: Final = {path.stem: path for path in sorted(SCENARIOS.glob("*.jsonl"))}
RECORDED: Final = {path.stem: path for path in sorted(RECORDINGS.glob("*.jsonl"))}


class Trace(NamedTuple):
    """The spans of a conversation, and the attributes that the application has stated in it."""

    spans: list[Span]
    stated: frozenset[str]


@cache
def trace(name: str, *, content: bool) -> Trace:
    """What becomes of a conversation, with or without content."""
    if (path := STREAMS.get(name) or RECORDED.get(name)) is not None:
        entries = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        facts = [entry["event"] for entry in entries if entry["dir"] == "emitter"]
        return Trace(replay(path, RULES, content=content).spans, _stated(facts))
    steps = [*opened(content=content), *WRITTEN[name]]
    facts = [step.event for step in steps if isinstance(step, Step) and step.event["type"] in tuple(Fact)]
    return Trace(stitched(steps, content=content), _stated(facts))


def stitched(steps: Conversation, *, content: bool = False) -> list[Span]:
    """The spans of a conversation; without a close it falls silent."""
    stitcher = Stitcher(RULES)
    outcome = fed(numbered(steps, content=content, agent="harbour"), stitcher=stitcher)
    add(outcome, stitcher.tick(STREAM_ID))
    return outcome.spans


def _stated(facts: list[dict[str, Attributes]]) -> frozenset[str]:
    return frozenset(name for each in facts for name in each.get("attributes", {}))


class Standing(NamedTuple):
    """An attribute, where it stands, and its value."""

    name: str
    place: str
    value: Value


def standing(given: Trace) -> Iterator[Standing]:
    """All that stands on the spans, their links and their events, but for what the application has stated."""
    for span in given.spans:
        carriers = [(str(span.attributes[key.OPERATION]), span.attributes)]
        carriers += [(key.LINK, link.attributes) for link in span.links]
        carriers += [(key.EVENT, event.attributes) for event in span.events]
        for place, attributes in carriers:
            for name, value in attributes.items():
                if name not in given.stated:
                    yield Standing(registered(name), place, value)


def registered(name: str) -> str:
    """The name under which the registry has it."""
    return re.sub(r"^(openai\.realtime\.rate_limit\.)[^.]+(?=\.)", r"\1{name}", name)


TYPES: Final[dict[str, tuple[type, ...]]] = {
    key.STRING: (str,),
    key.INT: (int,),
    key.DOUBLE: (float,),
    key.BOOL: (bool,),
    key.STRINGS: (list,),
}

FULL: Final = [*opened(), *speech("item_before"), *OPEN, *later(20, [fact(Fact.HEARTBEAT)])]
"""One span leaves while all others are open."""
ALL: Final = [*STREAMS, *WRITTEN]
EACH: Final = [
    *(pytest.param(name, id=name) for name in [*ALL, *RECORDED]),
    *([] if RECORDED else [pytest.param("", id="recordings", marks=pytest.mark.skip("no recordings are here"))]),
]


# --- The registry ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [False, True], ids=["without content", "with content"])
@pytest.mark.parametrize("name", EACH)
def test_every_attribute_is_registered_with_its_place_and_its_type(name: str, content: bool) -> None:
    found = list(standing(trace(name, content=content)))

    assert found
    assert [each for each in found if each.name not in ATTRIBUTES] == []
    assert [each for each in found if each.place not in ATTRIBUTES[each.name].on] == []
    assert [each for each in found if type(each.value) not in TYPES[ATTRIBUTES[each.name].type]] == []


def seen(*, content: bool) -> set[tuple[str, str]]:
    """Names and places of all attributes that stand anywhere."""
    return {(each.name, each.place) for name in ALL for each in standing(trace(name, content=content))}


@cache
def seen_within_limits() -> set[tuple[str, str]]:
    """The same of conversations that reach every limit; those that are written here begin late, and lack a record."""
    rules = Rules(limits=Limits(open_spans=1, items=1, held_records=1, attribute_length=20))
    found = [span for path in STREAMS.values() for span in replay(path, rules, content=False).spans]
    for steps in WRITTEN.values():
        first, _, *others = numbered([*opened(attributes={"application": "x" * 99}, late=True), *steps])
        stitcher = Stitcher(rules)
        outcome = fed([first, *others], stitcher=stitcher)
        found += [*outcome.spans, *stitcher.tick(STREAM_ID).spans]
    return {(each.name, each.place) for each in standing(Trace(found, frozenset()))}


@cache
def seen_moved() -> set[tuple[str, str]]:
    """The same of conversations that have begun elsewhere."""
    found: list[Span] = []
    for steps in WRITTEN.values():
        records = numbered([*opened(), *steps])
        for cut in range(1, len(records)):
            stitcher = Stitcher(Rules(sharded=True))
            outcome = fed(records[cut:], stitcher=stitcher)
            found += [*outcome.spans, *stitcher.tick(STREAM_ID).spans]
    return {(each.name, each.place) for each in standing(Trace(found, frozenset()))}


@cache
def seen_dropped() -> set[tuple[str, str]]:
    """The same of a stream with a chosen id, of which the emitter has dropped a record."""
    dropped = fact(Fact.RECORDS_DROPPED, in_place=True)
    records = numbered([*opened(), dropped, *closed()], stream("CA-2041", chosen=True))
    stitcher = Stitcher()
    outcome = fed(records, stitcher=stitcher)
    ended = (stitcher.tick(each) for each in list(stitcher.open))
    found = [*outcome.spans, *(span for each in ended for span in each.spans)]
    return {(each.name, each.place) for each in standing(Trace(found, frozenset()))}


def test_every_registered_attribute_stands_wherever_the_registry_says() -> None:
    every = {(name, place) for name, attribute in ATTRIBUTES.items() for place in attribute.on}

    rare = seen_within_limits() | seen_moved() | seen_dropped()
    assert every - seen(content=True) - seen(content=False) - rare == set()


def test_content_is_what_stands_on_spans_only_with_content_on() -> None:
    content = {name for name, attribute in ATTRIBUTES.items() if is_content(attribute)}

    with_content = {name for name, _ in seen(content=True)} - {name for name, _ in seen(content=False)}

    # Where a dialect has a text in the place of an object, the text's placeholder is an object, and the text is not.
    assert with_content - {key.BODIES_UNREADABLE} == content - {key.LOG_MESSAGE}


# --- The documentation ----------------------------------------------------------------------------------------------


def spans() -> Iterator[Span]:
    for name in ALL:
        yield from trace(name, content=False).spans


def test_links_are_those_of_the_documentation_and_all_of_them_occur() -> None:
    documented = {
        (link.begin, link.kind, link.end, inference) for link in LINKS for inference in link.inferences or (None,)
    }

    found = set()
    for name in ALL:
        by_id = {span.span_id: str(span.attributes[key.OPERATION]) for span in trace(name, content=False).spans}
        for span in trace(name, content=False).spans:
            for link in span.links:
                kind, inference = link.attributes.get(key.LINK_KIND), link.attributes.get(key.LINK_INFERENCE)
                found.add((span.attributes[key.OPERATION], kind, by_id[link.span_id], inference))

    assert found == documented


def test_spans_are_called_as_the_documentation_says() -> None:
    documented = {name.strip("`").partition(" ")[0]: (" " in name, kind) for name, kind, *_ in SPANS[1:]}

    for span in spans():
        operation, _, rest = span.name.partition(" ")
        may_be_named, kind = documented[operation]
        assert operation == span.attributes[key.OPERATION]
        assert span.kind.name == kind
        assert may_be_named or not rest
    assert set(documented) == set(key.SPANS)


def test_spans_end_for_the_reasons_of_the_documentation_and_all_of_them_occur(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_state: State, _record: Record, _body: object) -> None:
        raise RuntimeError("defect")

    monkeypatch.setitem(core.TRANSITIONS, Does.NOTE_LIMITS, fail)
    broken = stitched([*opened(), *OPEN, server("rate_limits.updated")])
    evicted = fed(numbered(FULL), Rules(limits=Limits(spans=1))).spans
    found: dict[str, set[str]] = {operation: set() for operation in key.SPANS}
    for span in [*spans(), *broken, *evicted]:
        found[str(span.attributes[key.OPERATION])].add(str(span.attributes[key.CLOSE_REASON]))

    assert found == {operation: {reason.value for reason in reasons} for operation, reasons in CLOSES.items()}


def test_every_close_reason_is_documented() -> None:
    assert {reason for reasons in CLOSES.values() for reason in reasons} == set(CloseReason)
