"""The laws of a trace, and what a conversation's events promise of its spans.

Nothing here asks the core: expectations are computed from the events alone, under the protocol's own names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct, field

from realtime_otel import contract
from realtime_otel.contract import Direction, Fact, Kind
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.events import TABLE
from realtime_otel_sidecar.stitch.record import Record
from realtime_otel_sidecar.stitch.spans import CloseReason, Span
from tests.conversations import Conversation, Step

NO_RESPONSE: Final = (
    "response.video.",
    "response.invocation.",
    "response.web_search_call.",
    "response.file_search_call.",
)
"""Dialects' events that say nothing of a response, whatever id they have."""


LINKED: Final = (bytes.fromhex("ab" * 16), bytes.fromhex("cd" * 8))
"""The span that sessions link to, where their conversation says so."""


# --- Any trace ------------------------------------------------------------------------------------------------------


def check_trace(
    spans: Sequence[Span], records: Sequence[Record] = (), *, sessions: int = 1, links_elsewhere: bool = False
) -> None:
    """What holds for the spans of one conversation, in the order in which they left.

    Args:
        records: what they were made of, for the parent that an emitter has stated.
        sessions: how many sessions there are, one behind the other.
        links_elsewhere: whether a session may link to any span; else only to `LINKED`.
    """
    ids = [(span.trace_id, span.span_id) for span in spans]
    remote = {record.parent_span_id for record in records} | {b""}
    assert len(set(ids)) == len(ids), "one id has left twice"
    assert sum(map(is_session, spans)) == sessions
    assert is_session(spans[-1]), "the session leaves last"
    for span in spans:
        assert span.start <= span.end
        assert span.attributes[key.OPERATION] in key.SPANS
        assert span.attributes[key.CLOSE_REASON] in list(CloseReason)
        assert (key.TURN_INDEX in span.attributes) is not is_session(span)
        assert (span.trace_id, span.parent_span_id) in ids or (is_session(span) and span.parent_span_id in remote)
        for link in span.links:
            to = (link.trace_id, link.span_id)
            assert to in ids or (is_session(span) and (links_elsewhere or to == LINKED)), "a link to nowhere"
        assert [event.time for event in span.events] == sorted(event.time for event in span.events)


def is_session(span: Span) -> bool:
    return span.attributes[key.OPERATION] == key.SESSION


# --- What events promise --------------------------------------------------------------------------------------------


class Promised(Struct):
    """Of the spans of one kind, by the protocol's id: which there must be, and which have a start and an end."""

    mentioned: set[str] = field(default_factory=set)
    opened: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)


def promised(steps: Conversation) -> dict[Kind, Promised]:
    """What the events of a conversation say of its spans."""
    found = {kind: Promised() for kind in (Kind.USER_SPEECH, Kind.RESPONSE, Kind.TOOL, Kind.PLAYBACK)}
    for step in steps:
        if not isinstance(step, Step) or step.event["type"] not in TABLE:
            continue
        if step.direction is Direction.EMITTER and step.event["type"] == Fact.STREAM_CLOSED:
            break
        if step.direction is Direction.SERVER and step.event["type"] not in list(Fact):
            response = step.event.get("response")
            is_over = isinstance(response, dict) and response.get("id") in found[Kind.RESPONSE].ended
            _note_speech(step.event, found[Kind.USER_SPEECH])
            _note_response(step.event, found[Kind.RESPONSE])
            _note_playback(step.event, found[Kind.PLAYBACK])
            if step.event["type"] != "response.done" or not is_over:
                for item in _items(step.event):
                    _note_call(step.event, item, found[Kind.TOOL])
            _note_call_event(step.event, found[Kind.TOOL])
    return found


def _note_speech(event: Mapping[str, Any], speeches: Promised) -> None:
    given = event.get("item")
    item = given if isinstance(given, dict) else {}
    match event["type"].split("."):
        case ["input_audio_buffer", what] if what not in ("cleared", "dtmf_event_received"):
            _add(speeches.mentioned, event.get("item_id"))
            if what in ("speech_started", "timeout_triggered") or contract.AUDIO_FIRST in event.get("extra", {}):
                _add(speeches.opened, event.get("item_id"))
            if what in ("speech_stopped", "committed"):
                _add(speeches.ended, event.get("item_id"))
        case ["conversation", "item", "input_audio_transcription", _]:
            _add(speeches.mentioned, event.get("item_id"))
        case ["conversation", "item", _] if item.get("type") == "message" and item.get("role") == "user":
            if any(part.get("type") == "input_audio" for part in item.get("content") or []):
                _add(speeches.mentioned, item.get("id"))


def _note_response(event: Mapping[str, Any], responses: Promised) -> None:
    kind, response = event["type"], event.get("response")
    if not kind.startswith(("response.", "output_audio_buffer.")) or kind.startswith(NO_RESPONSE):
        return
    given = event.get("response_id") or (response.get("id") if isinstance(response, dict) else None)
    _add(responses.mentioned, given)
    if kind == "response.created":
        _add(responses.opened, given)
    if kind == "response.done":
        _add(responses.ended, given)


def _note_playback(event: Mapping[str, Any], playbacks: Promised) -> None:
    match event["type"].split("."):
        case ["output_audio_buffer", what]:
            _add(playbacks.mentioned, event.get("response_id"))
            _add(playbacks.opened if what == "started" else playbacks.ended, event.get("response_id"))


def _items(event: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The items in an event: the one that it is about, or those that a response lists at its end."""
    response = event.get("response")
    listed = response.get("output") if event["type"] == "response.done" and isinstance(response, dict) else None
    is_about_one = event["type"].startswith(("conversation.item.", "response.output_item."))
    alone = event.get("item") if is_about_one and event["type"] != "conversation.item.retrieved" else None
    return (item for item in [alone, *(listed or [])] if isinstance(item, dict))


def _note_call(event: Mapping[str, Any], item: Mapping[str, Any], calls: Promised) -> None:
    match item.get("type"):
        case "function_call":
            _add(calls.mentioned, item.get("call_id"))
            if event["type"] in ("response.output_item.done", "response.done") and item.get("status") != "incomplete":
                _add(calls.opened, item.get("call_id"))
            if event["type"] == "response.output_item.done" and item.get("status") == "incomplete":
                _add(calls.ended, item.get("call_id"))
        case "function_call_output":
            _add(calls.mentioned, item.get("call_id"))
            _add(calls.ended, item.get("call_id"))
        case "mcp_call":
            _add(calls.mentioned, item.get("id"))


def _note_call_event(event: Mapping[str, Any], calls: Promised) -> None:
    match event["type"].split("."):
        case ["response", "function_call_arguments", what]:
            _add(calls.mentioned, event.get("call_id"))
            if what == "done":
                _add(calls.opened, event.get("call_id"))
        case ["response", "mcp_call_arguments", _]:
            _add(calls.mentioned, event.get("item_id"))
        case ["response", "mcp_call", what]:
            _add(calls.mentioned, event.get("item_id"))
            _add(calls.opened if what == "in_progress" else calls.ended, event.get("item_id"))


def _add(ids: set[str], given: Any) -> None:
    if isinstance(given, str) and given:
        ids.add(contract.identifier(given))


def by_id(spans: Iterable[Span], stream_key: str, kind: Kind, provider_id: str) -> list[Span]:
    """The spans of this id, in the order of their ordinals."""
    known = {span.span_id: span for span in spans}
    found: list[Span] = []
    while (span := known.get(contract.span_id(kind, stream_key, provider_id, len(found) + 1))) is not None:
        found.append(span)
    return found


def check_promises(steps: Conversation, spans: Sequence[Span], stream_key: str) -> None:
    """Whatever was mentioned has its span; what was not seen of it is marked as inferred."""
    for kind, promises in promised(steps).items():
        for provider_id in sorted(promises.mentioned):
            found = by_id(spans, stream_key, kind, provider_id)
            assert found, f"no span of {kind} {provider_id}"
            for span in found:
                if provider_id not in promises.opened:
                    assert span.attributes.get(key.START_INFERRED) is True, (
                        f"start of {kind} {provider_id} was not seen"
                    )
                if provider_id not in promises.ended:
                    assert span.attributes.get(key.CLOSE_INFERRED) is True, f"end of {kind} {provider_id} was not seen"
