"""Attribute keys of spans, links and span events.

Names come from the GenAI semantic conventions where these have one; everything else is ``openai.realtime.*``. Keys
that records carry too are in `realtime_otel.contract`.
"""

from typing import Final

# GenAI semantic conventions
OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
MAX_TOKENS: Final = "gen_ai.request.max_tokens"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
CONVERSATION_ID: Final = "gen_ai.conversation.id"
OUTPUT_TYPE: Final = "gen_ai.output.type"
TOOL_TYPE: Final = "gen_ai.tool.type"
ERROR_TYPE: Final = "error.type"

USAGE_INPUT: Final = "gen_ai.usage.input_tokens"
USAGE_OUTPUT: Final = "gen_ai.usage.output_tokens"
USAGE_CACHE_READ: Final = "gen_ai.usage.cache_read.input_tokens"
USAGE_REASONING: Final = "gen_ai.usage.reasoning.output_tokens"
USAGE_TEXT_INPUT: Final = "gen_ai.usage.text.input_tokens"
USAGE_AUDIO_INPUT: Final = "gen_ai.usage.audio.input_tokens"
USAGE_IMAGE_INPUT: Final = "gen_ai.usage.image.input_tokens"
USAGE_TEXT_OUTPUT: Final = "gen_ai.usage.text.output_tokens"
USAGE_AUDIO_OUTPUT: Final = "gen_ai.usage.audio.output_tokens"
USAGE_TEXT_CACHE_READ: Final = "gen_ai.usage.text.cache_read.input_tokens"
USAGE_AUDIO_CACHE_READ: Final = "gen_ai.usage.audio.cache_read.input_tokens"
USAGE_IMAGE_CACHE_READ: Final = "gen_ai.usage.image.cache_read.input_tokens"

# Every span of a conversation
CLOSE_REASON: Final = "openai.realtime.close.reason"
CLOSE_INFERRED: Final = "openai.realtime.close.inferred"
START_INFERRED: Final = "openai.realtime.start.inferred"
TURN_INDEX: Final = "openai.realtime.turn.index"

# The session span: the quality of its own data
RECORDS: Final = "openai.realtime.records"
RECORDS_MISSING: Final = "openai.realtime.records.missing"
RECORDS_DROPPED: Final = "openai.realtime.records.dropped"
ENDS_INFERRED: Final = "openai.realtime.ends.inferred"
EVENTS_UNKNOWN: Final = "openai.realtime.events.unknown"
CLOSE_CODE: Final = "openai.realtime.close.code"

# user_speech
AUDIO_START: Final = "openai.realtime.audio.start_ms"
AUDIO_END: Final = "openai.realtime.audio.end_ms"
TRANSCRIPTION: Final = "openai.realtime.transcription.status"
TRANSCRIPTION_ERROR: Final = "openai.realtime.transcription.error.code"
HEARD: Final = "openai.realtime.interruption.heard_ms"

# realtime_inference, seconds
FIRST_EVENT: Final = "openai.realtime.response.time_to_first_event"
FIRST_AUDIO: Final = "openai.realtime.response.time_to_first_audio"
VAD_STOP_TO_AUDIO: Final = "openai.realtime.turn.vad_stop_to_first_audio"
OUTPUT_TO_AUDIO: Final = "openai.realtime.tool.output_to_first_audio"
VOICE: Final = "openai.realtime.voice"

# execute_tool, seconds
TOOL_DURATION: Final = "openai.realtime.tool.duration"

# Links
LINK_KIND: Final = "openai.realtime.link.kind"
LINK_INFERENCE: Final = "openai.realtime.link.inference"

# Span events
EVENT_DIRECTION: Final = "openai.realtime.direction"
ERROR_CODE: Final = "openai.realtime.error.code"
ERROR_EVENT_ID: Final = "openai.realtime.error.event.id"
LOG_SEVERITY: Final = "openai.realtime.log.severity"
LOG_LOGGER: Final = "openai.realtime.log.logger"
LOG_MESSAGE: Final = "openai.realtime.log.message"
