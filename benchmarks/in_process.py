"""What the emitter is compared with: a listener that makes the spans of a conversation inside the agent's process.

It is what one writes with the SDK alone: each event is validated with the framework's own adapter and counted, and
spans are opened and ended by the events that name their ids. It makes spans where the sidecar makes them: of the
session, of the user's speech, of responses and of calls. What the sidecar does beyond that (events out of order,
barge-in, links, durability) it does not.
"""

from __future__ import annotations

from typing import Any

import pydantic
from agents.realtime import RealtimeModelEvent, RealtimeModelListener
from agents.realtime.openai_realtime import get_server_event_type_adapter
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind

SCOPE = "in-process"


class Telemetry:
    """The providers that all conversations of a process share, and the instruments, made once."""

    def __init__(self) -> None:
        self.traces = TracerProvider(shutdown_on_exit=False)
        self.traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        reader = PeriodicExportingMetricReader(OTLPMetricExporter())
        self.metrics = MeterProvider([reader], shutdown_on_exit=False)
        self.tracer = self.traces.get_tracer(SCOPE)
        meter = self.metrics.get_meter(SCOPE)
        self.events = meter.create_counter("realtime.events")
        self.invalid = meter.create_counter("realtime.events.invalid")
        self.tokens = meter.create_counter("gen_ai.client.token.usage")
        self.adapter = get_server_event_type_adapter()
        self._attributes: dict[str, dict[str, str]] = {}

    def attributes(self, kind: str) -> dict[str, str]:
        """The counter's attributes for a type of event: one dict for each, not one for each event."""
        known = self._attributes.get(kind)
        if known is None:
            known = self._attributes[kind] = {"type": kind}
        return known

    def shutdown(self) -> None:
        self.traces.shutdown()
        self.metrics.shutdown()


class InProcessListener(RealtimeModelListener):
    """One conversation."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._validate = telemetry.adapter.validate_python
        self._count = telemetry.events.add
        self._session = telemetry.tracer.start_span("realtime_session")
        self._within = trace.set_span_in_context(self._session)
        self._open: dict[str, Span] = {}

    async def on_event(self, event: RealtimeModelEvent) -> None:
        if event.type != "raw_server_event":
            return
        data = event.data
        if "previous_item_id" in data and data["previous_item_id"] is None:
            data = {**data, "previous_item_id": ""}  # as the framework does: its types do not know a first item
        try:
            parsed: Any = self._validate(data)
        except pydantic.ValidationError:
            self._telemetry.invalid.add(1)
            return
        kind = parsed.type
        self._count(1, self._telemetry.attributes(kind))
        if not kind.endswith(".delta"):
            self._spans(kind, parsed)

    def close(self) -> None:
        for span in (*self._open.values(), self._session):
            span.end()
        self._open.clear()

    def _spans(self, kind: str, event: Any) -> None:
        match kind:
            case "session.created":
                self._session.set_attribute("gen_ai.request.model", str(event.session.model))
            case "input_audio_buffer.speech_started":
                self._start("user_speech", event.item_id, {"openai.realtime.item.id": event.item_id})
            case "input_audio_buffer.speech_stopped":
                self._end(event.item_id)
            case "response.created":
                attributes = {"gen_ai.operation.name": "realtime_inference", "gen_ai.response.id": event.response.id}
                self._start("realtime_inference", event.response.id, attributes, SpanKind.CLIENT)
            case "response.done":
                self._response_done(event.response)
            case "response.function_call_arguments.done":
                attributes = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.call.id": event.call_id}
                self._start("execute_tool", event.call_id, attributes)
            case "conversation.item.added" | "conversation.item.created":
                if event.item.type == "function_call_output":
                    self._end(event.item.call_id)

    def _response_done(self, response: Any) -> None:
        usage = response.usage
        attributes: dict[str, Any] = {"gen_ai.response.finish_reasons": [response.status]}
        if usage is not None:
            attributes["gen_ai.usage.input_tokens"] = usage.input_tokens
            attributes["gen_ai.usage.output_tokens"] = usage.output_tokens
            self._telemetry.tokens.add(usage.input_tokens or 0, {"gen_ai.token.type": "input"})
            self._telemetry.tokens.add(usage.output_tokens or 0, {"gen_ai.token.type": "output"})
        self._end(response.id, attributes)

    def _start(self, name: str, key: str, attributes: dict[str, str], kind: SpanKind = SpanKind.INTERNAL) -> None:
        tracer = self._telemetry.tracer
        self._open[key] = tracer.start_span(name, self._within, kind, attributes=attributes)

    def _end(self, key: str, attributes: dict[str, Any] | None = None) -> None:
        span = self._open.pop(key, None)
        if span is not None:
            span.set_attributes(attributes or {})
            span.end()
