"""Conversations to look at, as the spans that a backend gets."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from realtime_otel.contract import Fact
from realtime_otel.records import SCOPE, export_request
from realtime_otel_sidecar.otlp.encode import encode_spans
from realtime_otel_sidecar.stitch.rules import Rules
from realtime_otel_sidecar.stitch.stitcher import Stitcher
from tests import conversations as talk
from tests.conversations import Conversation, Logged, Step, client, later, server
from tests.sidecar import Recording, record

BYTES_A_SECOND = 48_000
"""Of the protocol's audio: 24,000 samples of two bytes."""
SESSION = {
    "id": "sess_1",
    "model": "gpt-realtime",
    "audio": {
        "input": {"transcription": {"model": "whisper-1"}},
        "output": {"format": {"type": "audio/pcm", "rate": 24_000}},
    },
}

QUESTION, ANSWER = "Will it rain this week?", "Monday begins with fog. Tuesday stays dry. On Wednesday it rains."
CORRECTION, RESULT = "Only today, please: Oslo or Athens?", "Athens is warmer, by thirty degrees."


def sounding(response: str, item: str, seconds: float) -> Step:
    """A piece of audio that is so long."""
    delta = base64.b64encode(bytes(round(seconds * BYTES_A_SECOND))).decode()
    return server("response.output_audio.delta", response_id=response, item_id=item, content_index=0, delta=delta)


def said(item: str, text: str) -> list[Step]:
    return talk.transcript(item, transcript=text)


def answered(response: str, item: str, text: str, seconds: float, *, previous: str, **done: Any) -> list[Step]:
    """A spoken response, generated in a third of the time that it takes to hear it."""
    part = {"type": "output_audio", "transcript": text}
    message = {"id": item, "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    return [
        *talk.response_created(response),
        *talk.output_item(response, item, previous=previous),
        *later(0.3, [sounding(response, item, seconds / 2)]),
        *later(seconds / 3, [sounding(response, item, seconds / 2)]),
        server("response.output_audio.done", response_id=response, item_id=item, content_index=0),
        server("conversation.item.done", item=message),
        server("response.output_item.done", response_id=response, output_index=0, item=message),
        *talk.response_done(response, **({"output": [message], "usage": talk.usage(120, 80)} | done)),
    ]


def called(response: str, call: str, item: str, city: str) -> list[Step]:
    arguments = json.dumps({"city": city})
    described = {
        "id": item, "type": "function_call", "call_id": call, "name": "get_weather", "status": "completed",
        "arguments": arguments,
    }  # fmt: skip
    about = {"response_id": response, "item_id": item, "call_id": call, "name": "get_weather", "arguments": arguments}
    return [
        server("response.function_call_arguments.done", **about),
        server("response.output_item.done", response_id=response, output_index=0, item=described),
    ]


def conversation() -> list[Step | Logged]:
    """Two turns: the user cuts the first answer, and asks what two calls at once have to find out."""
    return [
        *talk.opened(attributes={"tenant": "north"}, content=True, client_events=True),
        server("session.created", session=SESSION),
        *later(1.0, talk.speech("item_1", lasts=1.5)),
        *answered("resp_1", "item_2", ANSWER, 6.0, previous="item_1"),
        *said("item_1", QUESTION),
        *later(1.0, [server("input_audio_buffer.speech_started", item_id="item_3", audio_start_ms=6000)]),
        client("conversation.item.truncate", item_id="item_2", content_index=0, audio_end_ms=3000),
        server("conversation.item.truncated", item_id="item_2", content_index=0, audio_end_ms=3000),
        server("input_audio_buffer.speech_stopped", item_id="item_3", audio_end_ms=8000)._replace(after=2.0),
        *talk.committed("item_3", previous="item_2"),
        *talk.response_created("resp_2"),
        *called("resp_2", "call_oslo", "item_4", "Oslo"),
        *called("resp_2", "call_athens", "item_5", "Athens"),
        *talk.response_done("resp_2", usage=talk.usage(200, 10)),
        *said("item_3", CORRECTION),
        talk.fact(Fact.TOOL_STARTED, call_id="call_oslo"),
        talk.fact(Fact.TOOL_STARTED, call_id="call_athens"),
        Logged("asking the station in Oslo", "call_oslo"),
        Logged("asking the station in Athens", "call_athens", after=0.2),
        talk.fact(Fact.TOOL_FINISHED, call_id="call_oslo")._replace(after=0.4),
        talk.fact(Fact.TOOL_FINISHED, call_id="call_athens")._replace(after=0.3),
        *talk.tool_output("call_oslo", "item_6", previous="item_5"),
        *talk.tool_output("call_athens", "item_7", previous="item_6"),
        *answered("resp_3", "item_8", RESULT, 3.0, previous="item_7"),
        *later(3.0, [server("error", error={"type": "server_error", "code": "hiccup", "message": "once"})]),
        *talk.closed(),
    ]


def recorded(steps: Conversation | None = None, name: str = "stream", **of: Any) -> Recording:
    return record(steps or conversation(), name, **({"service": "hotline"} | of))


def spans(recording: Recording | None = None, *, without: Sequence[int] = ()) -> ExportTraceServiceRequest:
    """A conversation's spans as a backend gets them. ``without``: numbers of records that were lost."""
    recording = recording or recorded()
    records = [each for number, each in enumerate(recording.records) if number not in without]
    given = talk.decoded([export_request(recording.resource, SCOPE, records)])
    stitcher, found = Stitcher(Rules(tool_logs=True)), []
    for each in given:
        found += stitcher.feed(each).spans
    for key in list(stitcher.streams):
        found += stitcher.tick(key).spans
    return encode_spans(found)
