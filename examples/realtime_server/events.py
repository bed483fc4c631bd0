"""The server's events, one function each. A function leaves out `event_id`, which the server adds as it sends."""

from collections.abc import Mapping, Sequence
from typing import Any

Event = dict[str, Any]


def _event(kind: str, **fields: Any) -> Event:
    return {"type": kind, **fields}


# --- session and errors -----------------------------------------------------------------------------------------------


def session_created(session: Event) -> Event:
    return _event("session.created", session=session)


def session_updated(session: Event) -> Event:
    return _event("session.updated", session=session)


def error(code: str, message: str, *, param: str | None = None, event_id: str | None = None) -> Event:
    """A refusal. `event_id` is that of the client event that was refused, if it had one."""
    details = {"type": "invalid_request_error", "code": code, "message": message, "param": param, "event_id": event_id}
    return _event("error", error=details)


def rate_limits_updated(spent_requests: int, spent_tokens: int) -> Event:
    limits = [("requests", 10_000, spent_requests, 0.006), ("tokens", 2_000_000, spent_tokens, 0.03)]
    return _event(
        "rate_limits.updated",
        rate_limits=[
            {"name": name, "limit": limit, "remaining": max(0, limit - spent), "reset_seconds": seconds}
            for name, limit, spent, seconds in limits
        ],
    )


# --- the input audio buffer -------------------------------------------------------------------------------------------


def speech_started(item_id: str, audio_start_ms: int) -> Event:
    return _event("input_audio_buffer.speech_started", audio_start_ms=audio_start_ms, item_id=item_id)


def speech_stopped(item_id: str, audio_end_ms: int) -> Event:
    return _event("input_audio_buffer.speech_stopped", audio_end_ms=audio_end_ms, item_id=item_id)


def timeout_triggered(item_id: str, audio_start_ms: int, audio_end_ms: int) -> Event:
    fields = {"audio_start_ms": audio_start_ms, "audio_end_ms": audio_end_ms, "item_id": item_id}
    return _event("input_audio_buffer.timeout_triggered", **fields)


def committed(item_id: str, previous_item_id: str | None) -> Event:
    return _event("input_audio_buffer.committed", previous_item_id=previous_item_id, item_id=item_id)


def cleared() -> Event:
    return _event("input_audio_buffer.cleared")


# --- conversation items -----------------------------------------------------------------------------------------------


def item_added(item: Event, previous_item_id: str | None) -> Event:
    return _event("conversation.item.added", previous_item_id=previous_item_id, item=item)


def item_done(item: Event, previous_item_id: str | None) -> Event:
    return _event("conversation.item.done", previous_item_id=previous_item_id, item=item)


def item_retrieved(item: Event) -> Event:
    return _event("conversation.item.retrieved", item=item)


def item_truncated(item_id: str, content_index: int, audio_end_ms: int) -> Event:
    fields = {"item_id": item_id, "content_index": content_index, "audio_end_ms": audio_end_ms}
    return _event("conversation.item.truncated", **fields)


def item_deleted(item_id: str) -> Event:
    return _event("conversation.item.deleted", item_id=item_id)


def transcription_delta(item_id: str, delta: str, obfuscation: str) -> Event:
    fields = {"item_id": item_id, "content_index": 0, "delta": delta, "obfuscation": obfuscation}
    return _event("conversation.item.input_audio_transcription.delta", **fields)


def transcription_completed(item_id: str, transcript: str, usage: Event) -> Event:
    fields = {"item_id": item_id, "content_index": 0, "transcript": transcript, "usage": usage}
    return _event("conversation.item.input_audio_transcription.completed", **fields)


def transcription_failed(item_id: str, code: str) -> Event:
    message = "The audio could not be transcribed."
    error = {"type": "transcription_error", "code": code, "message": message, "param": None}
    fields = {"item_id": item_id, "content_index": 0, "error": error}
    return _event("conversation.item.input_audio_transcription.failed", **fields)


# --- items ------------------------------------------------------------------------------------------------------------


def user_audio_item(item_id: str) -> Event:
    content = [{"type": "input_audio", "transcript": None}]
    return {"id": item_id, "type": "message", "status": "completed", "role": "user", "content": content}


def system_item(item_id: str, text: str) -> Event:
    content = [{"type": "input_text", "text": text}]
    return {"id": item_id, "type": "message", "status": "completed", "role": "system", "content": content}


def assistant_item(item_id: str) -> Event:
    return {"id": item_id, "type": "message", "status": "in_progress", "role": "assistant", "content": []}


def call_item(item_id: str, name: str, call_id: str) -> Event:
    item = {"id": item_id, "type": "function_call", "status": "in_progress"}
    return {**item, "name": name, "call_id": call_id, "arguments": ""}


def mcp_tools_item(item_id: str, server_label: str, tools: Sequence[str]) -> Event:
    listed = [{"name": name, "input_schema": {"type": "object"}, "description": None} for name in tools]
    return {"id": item_id, "type": "mcp_list_tools", "server_label": server_label, "tools": listed}


def mcp_call_item(item_id: str, name: str, server_label: str) -> Event:
    item = {"id": item_id, "type": "mcp_call", "name": name, "server_label": server_label, "arguments": ""}
    return {**item, "approval_request_id": None, "output": None, "error": None}


def mcp_approval_request_item(item_id: str, call: Event) -> Event:
    asked = {key: call[key] for key in ("name", "server_label", "arguments")}
    return {"id": item_id, "type": "mcp_approval_request", **asked}


# --- tools of MCP servers ---------------------------------------------------------------------------------------------


def mcp_list_tools(outcome: str, item_id: str) -> Event:
    return _event(f"mcp_list_tools.{outcome}", item_id=item_id)


def mcp_call(outcome: str, item_id: str, output_index: int) -> Event:
    return _event(f"response.mcp_call.{outcome}", item_id=item_id, output_index=output_index)


# --- responses --------------------------------------------------------------------------------------------------------


def response(
    response_id: str,
    session: Event,
    *,
    conversation_id: str | None,
    request: Mapping[str, Any],
    status: str = "in_progress",
    reason: str | None = None,
    failure: Event | None = None,
    output: Sequence[Event] = (),
    usage: Event | None = None,
) -> Event:
    """The response object. `request` is what the client asked for in `response.create`, empty after speech."""
    why = {"reason": reason} if reason is not None else {"error": failure} if failure is not None else None
    speech = session["audio"]["output"]
    return {
        "object": "realtime.response",
        "id": response_id,
        "status": status,
        "status_details": {"type": status, **why} if why is not None else None,
        "output": list(output),
        "conversation_id": conversation_id,
        "output_modalities": request.get("output_modalities", session["output_modalities"]),
        "max_output_tokens": request.get("max_output_tokens", session["max_output_tokens"]),
        "audio": {"output": {"format": speech["format"], "voice": speech["voice"]}},
        "usage": usage,
        "metadata": request.get("metadata"),
    }


def usage(context: tuple[int, int], cached: tuple[int, int], made: tuple[int, int]) -> Event:
    """A response's token counts: its input, how much of that came from the cache, its output; each as (text, audio)."""
    (text_in, audio_in), (text_out, audio_out) = context, made
    cached_details = {"text_tokens": cached[0], "audio_tokens": cached[1], "image_tokens": 0}
    return {
        "total_tokens": text_in + audio_in + text_out + audio_out,
        "input_tokens": text_in + audio_in,
        "output_tokens": text_out + audio_out,
        "input_token_details": {
            "text_tokens": text_in,
            "audio_tokens": audio_in,
            "image_tokens": 0,
            "cached_tokens": sum(cached),
            "cached_tokens_details": cached_details,
        },
        "output_token_details": {"text_tokens": text_out, "audio_tokens": audio_out},
    }


def response_created(body: Event) -> Event:
    return _event("response.created", response=body)


def response_done(body: Event) -> Event:
    return _event("response.done", response=body)


def output_item_added(response_id: str, output_index: int, item: Event) -> Event:
    return _event("response.output_item.added", response_id=response_id, output_index=output_index, item=item)


def output_item_done(response_id: str, output_index: int, item: Event) -> Event:
    return _event("response.output_item.done", response_id=response_id, output_index=output_index, item=item)


def of_content(kind: str, place: Event, **fields: Any) -> Event:
    """An event of an item's content: `response.` and its kind, its place (response, item, indexes), its own fields."""
    return _event(f"response.{kind}", **place, **fields)
