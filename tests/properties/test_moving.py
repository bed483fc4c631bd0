"""A stream that moves between stitchers: together they make one trace, and none makes what another has made."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from realtime_otel import contract
from realtime_otel.contract import Direction, Fact, Kind
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.record import Record
from realtime_otel_sidecar.stitch.rules import Rules
from realtime_otel_sidecar.stitch.spans import Span
from realtime_otel_sidecar.stitch.stitcher import Outcome
from tests.conversations import STREAM_ID, Conversation, Logged, Step, decoded, encoded, request, stream

from .arriving import EACH_ARRIVAL, PATIENT, add, in_any_order, share, stitched, with_drops
from .checking import LINKED, by_id, is_session, promised
from .generating import EACH_SOURCE

SHARDED: Final = structs.replace(PATIENT, sharded=True)
CHOSEN: Final = "call-4711"

ROUTES: Final = st.sampled_from(["AB", "ABC", "ABA", "ABCAB"])
"""Where the stream goes: once, twice, there and back, round and round."""


# --- Conversations that a service can hold --------------------------------------------------------------------------


def sensible(steps: Conversation) -> Conversation:
    """The same up to its first close, in which each id is opened once, by what the protocol opens it with.

    Whether an id was opened before, at another stitcher, is what none can know.
    """
    kept: list[Step | Logged] = []
    done: set[tuple[str, str]] = set()
    for step in steps:
        if isinstance(step, Step) and step.direction is Direction.SERVER:
            openings = set(_openings(step.event))
            if openings & done:
                continue
            done |= openings | set(_completions(step.event))
        kept.append(step)
        if isinstance(step, Step) and step.event["type"] == Fact.STREAM_CLOSED and step.direction is Direction.EMITTER:
            break
    return kept


def _openings(event: dict[str, Any]) -> list[tuple[str, str]]:
    """What the event opens, or announces, and what therefore must not have been opened or completed before it."""
    match event["type"].split("."):
        case ["input_audio_buffer", "speech_started" | "timeout_triggered"]:
            return [("speech", _text(event.get("item_id"))), ("commit", _text(event.get("item_id")))]
        case ["input_audio_buffer", "committed"]:
            return [("commit", _text(event.get("item_id")))]
        case ["response", "created"]:
            return [("response", _text((event.get("response") or {}).get("id")))]
        case ["response", "function_call_arguments", "done"]:
            return [("call", _text(event.get("call_id")))]
        case ["response", "output_item", "added"]:
            return [("announced", _text((event.get("item") or {}).get("call_id")))]
        case ["response", "mcp_call", "in_progress"]:
            return [("mcp", _text(event.get("item_id")))]
        case ["output_audio_buffer", "started"]:
            return [("playback", _text(event.get("response_id")))]
    return []


def _completions(event: dict[str, Any]) -> list[tuple[str, str]]:
    """The calls that the event completes, if nothing has before."""
    response = event.get("response")
    listed = response.get("output") if isinstance(response, dict) and event["type"] == "response.done" else []
    items = [event.get("item")] if event["type"] == "response.output_item.done" else listed or []
    calls = {_text(item.get("call_id")) for item in items if isinstance(item, dict)}
    calls |= {_text(event.get("call_id"))} if event["type"] == "response.function_call_arguments.done" else set()
    return [(what, call) for call in calls for what in ("call", "announced")]


def _text(given: Any) -> str:
    return given if isinstance(given, str) else ""


# --- Stitchers ------------------------------------------------------------------------------------------------------


def routed(records: Sequence[Record], route: str, chance: random.Random) -> dict[str, list[Record]]:
    """The records that each of the stitchers on the route gets: at every stay one at least, if there are as many."""
    cuts = sorted(chance.sample(range(1, len(records)), min(len(route), len(records)) - 1))
    stays = [records[start:end] for start, end in zip([0, *cuts], [*cuts, len(records)], strict=True)]
    parts: dict[str, list[Record]] = {}
    for name, stay in zip(route, stays, strict=False):
        parts.setdefault(name, []).extend(stay)
    return parts


def together(parts: dict[str, list[Record]], rules: Rules, arrival: Any, chance: random.Random) -> Outcome:
    """What all of them make, each restarted now and then, and each told at the end that nothing more comes."""
    total = Outcome()
    for part in parts.values():
        add(total, stitched(arrival(part, chance), rules, restarts=chance))
    return total


def check_union(spans: Sequence[Span], records: Sequence[Record]) -> None:
    """No id twice, nothing that points to nowhere, every record taken once."""
    ids = [(span.trace_id, span.span_id) for span in spans]
    assert len(set(ids)) == len(ids), "one id has left twice"
    remote = {record.parent_span_id for record in records} | {b""}
    sessions = [span for span in spans if is_session(span)]
    for span in spans:
        assert (span.trace_id, span.parent_span_id) in ids or (is_session(span) and span.parent_span_id in remote)
        for link in span.links:
            to = (link.trace_id, link.span_id)
            assert to in ids or (is_session(span) and to == LINKED), "a link to nowhere"
    assert sum(int(str(span.attributes[key.RECORDS])) for span in sessions) == len(records)


def made_here(span: Span, parts: dict[str, list[Record]]) -> bool:
    """Whether the mark of a span names the first record of one of the parts."""
    return span.attributes.get(key.CONTINUED) in {part[0].seq for part in parts.values()}


# --- Laws -----------------------------------------------------------------------------------------------------------


@EACH_SOURCE
@EACH_ARRIVAL
@share(0.2)
@given(data=st.data(), route=ROUTES, seed=st.integers(0, 2**32))
def test_what_the_stitchers_make_together_is_one_trace_in_which_no_id_leaves_twice(
    source: st.SearchStrategy[Conversation], arrival: Any, rules: Rules, data: st.DataObject, route: str, seed: int
) -> None:
    steps, chance = sensible(data.draw(source)), random.Random(seed)
    records = numbered_only(decoded([request(with_drops(encoded(steps), steps, chance))]))
    parts = routed(records, route, chance)

    outcome = together(parts, structs.replace(rules, sharded=True), arrival, chance)

    assert not outcome.errors
    assert not outcome.rejected
    check_union(outcome.spans, records)
    check_marks(outcome.spans, parts)


def numbered_only(records: Sequence[Record]) -> list[Record]:
    """Without the log lines of other exporters, which no emitter has numbered."""
    return [record for record in records if record.seq >= 0]


def check_marks(spans: Sequence[Span], parts: dict[str, list[Record]]) -> None:
    """Each stitcher's session is there; all but that of the first are marked and lie under the original."""
    original = contract.span_id(Kind.SESSION, STREAM_ID)
    sessions = {int(str(span.attributes.get(key.CONTINUED, 0))): span for span in spans if is_session(span)}
    assert set(sessions) == {part[0].seq for part in parts.values()}
    for seq, span in sessions.items():
        assert (span.span_id == original) is (seq == 0)
        assert (span.parent_span_id == original) is (seq > 0)
    for span in spans:
        assert key.CONTINUED not in span.attributes or made_here(span, parts)


@EACH_SOURCE
@share(0.2)
@given(data=st.data(), route=ROUTES, seed=st.integers(0, 2**32))
def test_whatever_was_mentioned_has_a_span_and_what_was_opened_keeps_its_id(
    source: st.SearchStrategy[Conversation], data: st.DataObject, route: str, seed: int
) -> None:
    steps, chance = sensible(data.draw(source)), random.Random(seed)
    records = numbered_only(decoded([request(encoded(steps))]))
    parts = routed(records, route, chance)

    spans = together(parts, SHARDED, in_any_order, chance).spans

    opened = opened_first(steps)
    for kind, promises in promised(steps).items():
        for provider_id in promises.mentioned:
            original = by_id(spans, STREAM_ID, kind, provider_id)
            assert original or continued(spans, parts, kind, provider_id), f"no span of {kind} {provider_id}"
            assert original or (kind, provider_id) not in opened, f"{kind} {provider_id} has lost its id"


def opened_first(steps: Conversation) -> set[tuple[Kind, str]]:
    """What is opened by the event that the protocol has for it, before anything can point to it."""
    kinds = {"speech": Kind.USER_SPEECH, "response": Kind.RESPONSE, "playback": Kind.PLAYBACK, "call": Kind.TOOL}
    found: set[tuple[Kind, str]] = set()
    for number, step in enumerate(steps):
        if not isinstance(step, Step) or step.direction is not Direction.SERVER:
            continue
        before = promised(steps[:number])
        for what, provider_id in _openings(step.event):
            kind = kinds.get(what)
            if kind is Kind.TOOL and _text(step.event.get("response_id")) in before[Kind.RESPONSE].ended:
                continue  # what a response does not complete before its end has left
            if kind is not None and provider_id not in (
                before[kind].ended if kind is Kind.TOOL else before[kind].mentioned
            ):
                found.add((kind, provider_id))
    return found


def continued(spans: Sequence[Span], parts: dict[str, list[Record]], kind: Kind, provider_id: str) -> bool:
    """Whether one of the stitchers has made a span of this with an id of its own."""
    firsts = [(part[0].emitter_id, str(part[0].seq)) for part in parts.values()]
    ids = {contract.span_id(kind, STREAM_ID, provider_id, continued=first) for first in firsts}
    return any(span.span_id in ids for span in spans)


@EACH_SOURCE
@share(0.2)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_a_stream_that_does_not_move_keeps_the_ids_of_all_that_it_opens(
    source: st.SearchStrategy[Conversation], data: st.DataObject, seed: int
) -> None:
    steps, chance = data.draw(source), random.Random(seed)
    records = decoded([request(encoded(steps))])

    alone = stitched(records, PATIENT)
    among_others = stitched(records, SHARDED, restarts=chance)

    assert not among_others.errors
    marked = [span for span in among_others.spans if key.CONTINUED in span.attributes]
    kept = {span.span_id for span in among_others.spans} - {span.span_id for span in marked}
    assert kept <= {span.span_id for span in alone.spans}
    assert len(among_others.spans) == len(alone.spans)
    assert not any(is_session(span) for span in marked)
    assert all(span.attributes[key.CONTINUED] == 0 for span in marked)


@EACH_SOURCE
@share(0.2)
@given(data=st.data(), route=ROUTES, seed=st.integers(0, 2**32))
def test_a_stream_with_a_chosen_id_moves_alike(
    source: st.SearchStrategy[Conversation], data: st.DataObject, route: str, seed: int
) -> None:
    steps, chance = sensible(data.draw(source)), random.Random(seed)
    of = stream(CHOSEN, chosen=True)
    records = numbered_only(decoded([request(encoded(steps, of))]))

    outcome = together(routed(records, route, chance), SHARDED, in_any_order, chance)

    assert not outcome.errors
    check_union(outcome.spans, records)
