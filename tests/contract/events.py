"""Events of the test vectors: what the protocol says, and what it may say oddly."""

from __future__ import annotations

from typing import Final

from realtime_otel import contract
from tests.conversations import SECOND, STARTED

NOT_AN_ID: Final = "the call of Jadwiga Nowak"

SESSION_CREATED: Final = {
    "type": "session.created",
    "event_id": "event_1",
    "session": {
        "type": "realtime",
        "object": "realtime.session",
        "id": "sess_1",
        "model": "gpt-realtime",
        "expires_at": 1767229200,
        "output_modalities": ["audio"],
        "instructions": "You answer for the tide office. Be short.",
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "tools": [
            {
                "type": "function",
                "name": "get_tide",
                "description": "When the tide is high.",
                "parameters": {"type": "object", "properties": {"port": {"type": "string"}}},
            }
        ],
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "transcription": {"model": "whisper-1", "language": "pl", "prompt": "Names of ports."},
                "turn_detection": {"type": "server_vad", "threshold": 0.5, "idle_timeout_ms": None},
            },
            "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "marin", "speed": 1.0},
        },
        "prompt": None,
    },
}
TRANSCRIPT: Final = {
    "type": "conversation.item.input_audio_transcription.completed",
    "event_id": "event_9",
    "item_id": "item_1",
    "content_index": 0,
    "transcript": "Kiedy będzie przypływ? 🌊",
    "usage": {"type": "duration", "seconds": 3},
}
UNKNOWN: Final = {
    "type": "response.hologram.started",
    "event_id": "event_10",
    "response_id": "resp_1",
    "status": "completed",
    "mood": "completed",
    "note": "Jadwiga smiles",
    "people": [{"name": "Jadwiga", "status": "dreaming"}],
    "depths": {"left": {"metres": 3, "unit": "m"}, "by port": {"Gdynia": 4}},
    "metadata": {"caller": "Jadwiga"},
}
IMAGE: Final = {
    "type": "conversation.item.create",
    "event_id": "event_mine_1",
    "previous_item_id": "root",
    "item": {
        "id": "item_7",
        "type": "message",
        "role": "user",
        "content": [
            {"type": "input_text", "text": "Which pier is this?"},
            {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"},
            {"type": "input_audio", "audio": "AAECAwQFBgc="},
        ],
    },
}
FAILED: Final = {
    "type": "response.done",
    "event_id": "event_11",
    "response": {
        "object": "realtime.response",
        "id": "resp_2",
        "status": "failed",
        "status_details": {
            "type": "failed",
            "error": {"type": "server_error", "code": "inference_rate_limit_exceeded", "message": "Try later."},
        },
        "output": [],
        "conversation_id": "conv_1",
        "output_modalities": ["audio", "smell"],
        "max_output_tokens": 4096,
        "audio": {"output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "marin"}},
        "usage": {
            "total_tokens": 12,
            "input_tokens": 12,
            "output_tokens": 0,
            "input_token_details": {"text_tokens": 12, "audio_tokens": 0, "cached_tokens": 8},
        },
        "metadata": {"caller": "Jadwiga"},
    },
}
ARGUMENTS: Final = {
    "type": "response.function_call_arguments.done",
    "event_id": "event_12",
    "response_id": "resp_1",
    "item_id": "item_3",
    "output_index": 0,
    "call_id": "call_1",
    "name": "get_tide",
    "arguments": '{"port": "Gdynia"}',
}
ODD_IDS: Final = {
    "type": "conversation.item.added",
    "event_id": "event_13",
    "previous_item_id": None,
    "item": {
        "id": "",
        "type": "function_call",
        "call_id": NOT_AN_ID,
        "name": "get tide",
        "arguments": "",
        "status": "",
    },
}
LONG: Final = {
    "type": "response.output_text.done",
    "event_id": "event_14",
    "response_id": "resp_1",
    "item_id": "item_2",
    "text": "ebb and flow " * 2600,
}
MCP_CALL: Final = {
    "type": "response.output_item.done",
    "event_id": "event_18",
    "response_id": "resp_1",
    "output_index": 1,
    "item": {
        "id": "mcp_1",
        "type": "mcp_call",
        "approval_request_id": "mcpr_1",
        "name": "read_gauge",
        "server_label": "tide_office",
        "arguments": '{"port": "Gdynia"}',
        "output": None,
        "error": {"type": "http_error", "code": 503, "message": "Jadwiga has unplugged it."},
    },
}
APPROVAL: Final = {
    "type": "conversation.item.create",
    "event_id": "event_mine_3",
    "item": {
        "id": "item_9",
        "type": "mcp_approval_response",
        "approval_request_id": "mcpr_1",
        "approve": False,
        "reason": "Jadwiga says no.",
    },
}
CREDENTIALS: Final = {
    "type": "session.update",
    "event_id": "event_mine_4",
    "session": {
        "type": "realtime",
        "tools": [
            {
                "type": "mcp",
                "server_label": "tide_office",
                "server_url": "https://tides.example/sse?key=Jadwiga",
                "authorization": "Jadwiga-7",
                "headers": {"x-key": "Jadwiga-7"},
                "allowed_tools": ["read_gauge"],
                "require_approval": "always",
            }
        ],
    },
}
OTHER_DIALECT: Final = {
    "type": "session.updated",
    "event_id": "event_19",
    "session": {
        "id": "sess_1",
        "object": "realtime.session",
        "model": "grok-voice",
        "modalities": ["audio"],
        "voice": {"type": "azure-standard", "name": "en-US-AvaNeural", "style": "like Jadwiga"},
        "turn_detection": {"type": "azure_semantic_vad", "silence_duration_ms": 500},
        "input_audio_format": "not specified",
        "input_audio_transcription": {"model": "azure-speech", "phrase_list": ["Jadwiga"]},
        "tools": [{"type": "function", "function": {"name": "get_tide", "parameters": {"type": "object"}}}],
    },
}
COUNTED_AUDIO: Final = {
    contract.AUDIO_COUNT: 50,
    contract.AUDIO_SIZE: 48000,
    contract.AUDIO_FIRST: STARTED + SECOND,
    contract.AUDIO_LAST: STARTED + 2 * SECOND,
}
