"""Test vectors of the contract: ``python -m tests.contract.vectors`` writes docs/contract-vectors.json.

For somebody who writes an emitter in another language: what goes in, and the record that has to come out. Records are
OTLP/JSON, integers of 64 bits are decimal strings as they are there, and attributes stand in the order of their keys.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.trace import SpanContext, TraceFlags

from realtime_otel import contract
from realtime_otel.contract import Closed, Direction, Fact, Kind
from realtime_otel.records import About, RecordEncoder, ToolLog
from realtime_otel.stream import Stream
from tests.conversations import SECOND, STARTED

from . import events

FILE: Final = Path(__file__).parents[2] / "docs" / "contract-vectors.json"

DRAWN: Final = "5f0c2d7e-8a41-4c55-9b0e-3d1f6a7b8c9d"


def vectors() -> dict[str, Any]:
    """The whole document."""
    return {
        "about": "Test vectors of contract.md. Written by `python -m tests.contract.vectors`.",
        "contract": contract.VERSION,
        "ids": [
            _ids(DRAWN),
            _ids("CA8f2e1d0c9b8a", chosen=True, namespace="hotline", service="voice-agent"),
            _ids("CA8f2e1d0c9b8a", chosen=True, namespace="", service="voice-agent"),
            _ids("rozmowa/żółw", chosen=True, namespace="", service=""),
        ],
        "identifiers": [
            {"given": given, "leaves": contract.identifier(given)}
            for given in (
                "", "item_AbC-1.2:3/4=+~", "call_" + "9" * 251, "call_" + "9" * 252, events.NOT_AN_ID, "żółw", "🐢",
            )
        ],
        "event_types": [
            {"given": given, "event_name": contract.EVENT_PREFIX + contract.event_type(given)}
            for given in ("response.done", "response.mcp_call.in_progress", "session.hologram_2", " response.done",
                          "Response.Done", "response..done", "response.", "", "a" * 128, "a" * 129, None, 7)
        ],
        "allowlist": {
            "identifier_fields": sorted(contract.IDENTIFIER_FIELDS),
            "vocabulary": {name: sorted(terms) for name, terms in sorted(contract.VOCABULARY.items())},
            "open_terms": sorted(contract.OPEN_TERMS),
            "free_form_fields": sorted(contract.FREE_FORM_FIELDS),
            "secret_fields": sorted(contract.SECRET_FIELDS),
        },
        "events": [
            *(_event(*given) for given in _EVENTS),
            _event("content for events only", ROOT, _SERVER, events.TRANSCRIPT, True, {}, events_only=True),
        ],
        "facts": [_fact(*given) for given in _FACTS],
        "tool_log": _tool_log(),
    }  # fmt: skip


def _ids(stream_id: str, *, chosen: bool = False, namespace: str = "", service: str = "") -> dict[str, Any]:
    key = contract.stream_key(stream_id, chosen=chosen, namespace=namespace, service=service)
    given = [
        (Kind.SESSION, "", 1),
        (Kind.SESSION, str(STARTED), 1),
        (Kind.USER_SPEECH, "item_1", 1),
        (Kind.RESPONSE, "resp_1", 1),
        (Kind.RESPONSE, "resp_1", 2),
        (Kind.TOOL, "call_1", 1),
        (Kind.TOOL, "call_1", 3),
        (Kind.TOOL, contract.identifier(events.NOT_AN_ID), 1),
        (Kind.PLAYBACK, "resp_1", 1),
        (Kind.TRANSCRIPT, "item_1", 1),
    ]
    return {
        "stream": {"id": stream_id, "chosen": chosen, "service.namespace": namespace, "service.name": service},
        "stream_key": key,
        "trace_id": contract.trace_id(key).hex(),
        "spans": [
            {"kind": kind, "provider_id": provider_id, "ordinal": ordinal,
             "span_id": contract.span_id(kind, key, provider_id, ordinal).hex()}
            for kind, provider_id, ordinal in given
        ],
    }  # fmt: skip


# --- Streams --------------------------------------------------------------------------------------------------------


def _stream(stream_id: str = DRAWN, *, chosen: bool = False, **changes: Any) -> Stream:
    namespace, service = "hotline", "voice-agent"
    key = contract.stream_key(stream_id, chosen=chosen, namespace=namespace, service=service)
    given: dict[str, Any] = {
        "id": stream_id,
        "chosen": chosen,
        "emitter_id": "0d9c8b7a6f5e4d3c2b1a",
        "started": STARTED,
        "trace_id": contract.trace_id(key),
        "span_id": contract.span_id(Kind.SESSION, key),
        "namespace": namespace,
        "service": service,
    }
    return Stream(**(given | changes))


ROOT: Final = _stream()
CHOSEN: Final = _stream("CA8f2e1d0c9b8a", chosen=True)
UNDER_A_PARENT: Final = _stream(
    trace_id=bytes.fromhex("0af7651916cd43dd8448eb211c80319c"),
    parent_span_id=bytes.fromhex("b7ad6b7169203331"),
    sampled=False,
)


def _described(stream: Stream) -> dict[str, Any]:
    """What is known of a stream before its first record."""
    return {
        "id": stream.id,
        "chosen": stream.chosen,
        "service.namespace": stream.namespace,
        "service.name": stream.service,
        "emitter_id": stream.emitter_id,
        "started": str(stream.started),
        "trace_id": stream.trace_id.hex(),
        "parent_span_id": stream.parent_span_id.hex() if stream.parent_span_id else None,
        "sampled": stream.sampled,
    }


# --- Events ---------------------------------------------------------------------------------------------------------

_SERVER, _CLIENT = Direction.SERVER, Direction.CLIENT

_EVENTS: Final[list[tuple[str, Stream, Direction, Any, bool, dict[str, int]]]] = [
    ("a session, with content off", ROOT, _SERVER, events.SESSION_CREATED, False, {}),
    ("the same, with content on", ROOT, _SERVER, events.SESSION_CREATED, True, {}),
    ("a stream with a chosen id", CHOSEN, _SERVER, {"type": "input_audio_buffer.speech_started", "event_id": "event_2",
     "item_id": "item_1", "audio_start_ms": 812}, False, {}),
    ("a stream under a parent, not sampled", UNDER_A_PARENT, _SERVER, {"type": "response.created",
     "event_id": "event_3", "response": {"id": "resp_1", "status": "in_progress", "conversation_id": None}}, False, {}),
    ("a commit, with the audio appended before it", ROOT, _SERVER, {"type": "input_audio_buffer.committed",
     "event_id": "event_4", "item_id": "item_1", "previous_item_id": None}, False, events.COUNTED_AUDIO),
    ("a delta of audio: no body", ROOT, _SERVER, {"type": "response.output_audio.delta", "event_id": "event_5",
     "response_id": "resp_1", "item_id": "item_2", "content_index": 0, "delta": "AAECAwQFBg=="}, True, {}),
    ("a delta of text is counted in characters", ROOT, _SERVER, {"type": "response.output_audio_transcript.delta",
     "event_id": "event_6", "response_id": "resp_1", "item_id": "item_2", "delta": "przypływ 🌊"}, True, {}),
    ("the end of a part whose deltas were not sent", ROOT, _SERVER, {"type": "response.output_audio.done",
     "event_id": "event_7", "response_id": "resp_1", "item_id": "item_2", "content_index": 0}, False,
     {contract.DELTA_COUNT: 31, contract.DELTA_SIZE: 96000}),
    ("the output of a tool", ROOT, _SERVER, {"type": "conversation.item.added", "event_id": "event_8",
     "previous_item_id": "item_3", "item": {"id": "item_4", "type": "function_call_output", "call_id": "call_1",
     "output": "High at 14:20."}}, False, {}),
    ("a transcript, with content off", ROOT, _SERVER, events.TRANSCRIPT, False, {}),
    ("the same, with content on", ROOT, _SERVER, events.TRANSCRIPT, True, {}),
    ("an unknown event, with content off", ROOT, _SERVER, events.UNKNOWN, False, {}),
    ("the same, with content on", ROOT, _SERVER, events.UNKNOWN, True, {}),
    ("audio and data URIs of the client, with content off", ROOT, _CLIENT, events.IMAGE, False, {}),
    ("the same, with content on: still no audio and no data", ROOT, _CLIENT, events.IMAGE, True, {}),
    ("a response that failed", ROOT, _SERVER, events.FAILED, False, {}),
    ("a complete call", ROOT, _SERVER, events.ARGUMENTS, False, {}),
    ("the same, with content on", ROOT, _SERVER, events.ARGUMENTS, True, {}),
    ("ids that are absent, empty or of another shape", ROOT, _SERVER, events.ODD_IDS, False, {}),
    ("an error", ROOT, _SERVER, {"type": "error", "event_id": "event_15", "error": {"type": "invalid_request_error",
     "code": "invalid_value", "message": "Jadwiga is no voice.", "param": "session.audio.output.voice",
     "event_id": "event_mine_2"}}, False, {}),
    ("a call of a tool that the service runs", ROOT, _SERVER, events.MCP_CALL, False, {}),
    ("an approval that is refused", ROOT, _CLIENT, events.APPROVAL, False, {}),
    ("credentials, with content off", ROOT, _CLIENT, events.CREDENTIALS, False, {}),
    ("the same, with content on", ROOT, _CLIENT, events.CREDENTIALS, True, {}),
    ("a session in the words of other providers", ROOT, _SERVER, events.OTHER_DIALECT, False, {}),
    ("limits", ROOT, _SERVER, {"type": "rate_limits.updated", "event_id": "event_16", "rate_limits": [
     {"name": "requests", "limit": 1000, "remaining": 999, "reset_seconds": 0.06}]}, False, {}),
    ("keys that are no names of fields, with content off", ROOT, _SERVER, {"type": "session.measured", "by name":
     {"Jadwiga": 1}}, False, {}),
    ("a type that is none", ROOT, _SERVER, {"type": "dear diary", "event_id": "event_17"}, True, {}),
    ("an event that is no object", ROOT, _SERVER, ["dear", "diary"], False, {}),
    ("numbers of more than 64 bits", ROOT, _SERVER, {"type": "session.measured", "small": -9223372036854775808,
     "large": 9223372036854775808, "half": 0.5}, False, {}),
    ("base64 that nobody calls audio", ROOT, _SERVER, {"type": "session.measured", "wave": "QUJD" * 256}, True, {}),
    ("a string that is cut, with content on", ROOT, _SERVER, events.LONG, True, {}),
]  # fmt: skip


def _event(
    about: str,
    stream: Stream,
    direction: Direction,
    event: Any,
    content: bool,
    extra: dict[str, int],
    *,
    events_only: bool = False,
) -> dict[str, Any]:
    encoder = RecordEncoder(stream, content=content, events_only=events_only)
    record = encoder.event(event, direction=direction, seq=7, time=STARTED + 3 * SECOND, extra=extra)
    return {
        "about": about,
        "given": {
            "stream": _described(stream),
            "content": content,
            **({"events_only": True} if events_only else {}),
            "direction": direction,
            "seq": "7",
            "time": str(STARTED + 3 * SECOND),
            "counted": {name: str(count) for name, count in extra.items()},
            "event": event,
        },
        "record": _as_json(record),
    }


# --- Facts and logs -------------------------------------------------------------------------------------------------

_OPENING: Final = {
    "framework": "openai-agents",
    "framework_version": "0.24.0",
    "emitter": "realtime-otel-python",
    "emitter_version": "0.1.0",
    "deltas": "all",
    "content": False,
    "client_events": True,
    "late": False,
    "provider": "azure.ai.openai",
    "server_address": "tides.openai.azure.com",
    "server_port": 443,
    "attributes": {"tenant": "north", "attempt": 2},
    "links": [{"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331"}],
}

_FACTS: Final[list[tuple[Fact, Stream, dict[str, Any], About]]] = [
    (Fact.STREAM_OPENED, CHOSEN, _OPENING, {}),
    (Fact.HEARTBEAT, ROOT, {}, {}),
    (Fact.TOOL_STARTED, ROOT, {}, {"call_id": "call_1", "tool_name": "get_tide"}),
    (Fact.TOOL_FINISHED, ROOT, {}, {"call_id": "call_1", "tool_name": "get_tide"}),
    (Fact.TOOL_FINISHED, ROOT, {"error_type": "TimeoutError"}, {"call_id": events.NOT_AN_ID, "tool_name": "get tide"}),
    (Fact.RECORDS_DROPPED, ROOT, {"ranges": [[8, 11], [15, 15]], "in_place": True}, {}),
    (Fact.ANNOTATION, ROOT, {"attributes": {"outcome": "solved", "score": 4.5}}, {}),
    (Fact.ANNOTATION, ROOT, {"provider": "openai", "server_address": "api.openai.com", "server_port": 443}, {}),
    (Fact.AGENT_HANDED_OFF, ROOT, {"from": "reception", "to": "tides"}, {}),
    (Fact.GUARDRAIL_TRIPPED, ROOT, {"guardrails": ["no_weather"]}, {"response_id": "resp_1"}),
    (Fact.AUDIO_INTERRUPTED, ROOT, {"item_id": "item_2", "played_ms": 1200},
     {"item_id": "item_2", "response_id": "resp_1"}),
    (Fact.AUDIO_INTERRUPTED, ROOT, {"item_id": "item_2"}, {"item_id": "item_2"}),
    (Fact.STREAM_CLOSED, ROOT, {"reason": Closed.SESSION_CLOSED, "code": 1000}, {}),
    (Fact.STREAM_CLOSED, ROOT, {"reason": Closed.DISCONNECTED, "code": 1006, "error_type": "ConnectionClosedError"},
     {}),
]  # fmt: skip


def _fact(fact: Fact, stream: Stream, body: dict[str, Any], about: About) -> dict[str, Any]:
    encoder = RecordEncoder(stream, agent_name="reception")
    record = encoder.fact(fact, body, seq=7, time=STARTED + 3 * SECOND, **about)
    return {
        "given": {
            "stream": _described(stream),
            "agent_name": "reception",
            "fact": fact,
            **about,
            "seq": "7",
            "time": str(STARTED + 3 * SECOND),
            "body": body,
        },
        "record": _as_json(record),
    }


def _tool_log() -> dict[str, Any]:
    span_id = contract.span_id(Kind.TOOL, DRAWN, "call_1")
    trace_id, number = int.from_bytes(ROOT.trace_id, "big"), int.from_bytes(span_id, "big")
    log = ToolLog(
        message="asking the tide gauge",
        severity_number=9,
        severity_text="INFO",
        call_id="call_1",
        span=SpanContext(trace_id, number, is_remote=True, trace_flags=TraceFlags(1)),
    )
    return {
        "given": {
            "stream": _described(ROOT),
            "call_id": "call_1",
            "span_id": span_id.hex(),
            "message": log.message,
            "severity_number": 9,
            "severity_text": "INFO",
            "seq": "7",
            "time": str(STARTED + 3 * SECOND),
        },
        "record": _as_json(RecordEncoder(ROOT).log(log, seq=7, time=STARTED + 3 * SECOND)),
    }


def _as_json(record: bytes) -> dict[str, Any]:
    """An encoded LogRecord as OTLP/JSON, whose ids are hexadecimal."""
    document: dict[str, Any] = MessageToDict(LogRecord.FromString(record), use_integers_for_enums=True)
    for name in ("traceId", "spanId"):
        document[name] = base64.b64decode(document[name]).hex()
    document["attributes"] = sorted(document["attributes"], key=lambda attribute: str(attribute["key"]))
    return document


def text() -> str:
    """The file's content: a vector a line, so that a change shows which one."""
    sections = (f"{json.dumps(name)}: {_lines(section)}" for name, section in vectors().items())
    return "{\n" + ",\n".join(sections) + "\n}\n"


def _lines(section: Any) -> str:
    if not isinstance(section, list):
        return json.dumps(section, ensure_ascii=False)
    return "[\n" + ",\n".join("  " + json.dumps(vector, ensure_ascii=False) for vector in section) + "\n]"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
