"""Settled spans into OTLP: as protobuf for the wire, as JSON for files."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Status
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan

from ..stitch.spans import Attributes, Span, SpanKind, Value
from ..stitch.stitcher import RULES_VERSION

SCOPE = "realtime-otel"
SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
"""The newest schema that was published when this was written; the GenAI conventions have none of their own yet."""
SAMPLED = 0x01
PARENT_KNOWN, PARENT_IS_LOCAL = 0x100, 0x000
"""OTLP's span flags, bits 8 and 9: whether the parent is remote is known, and it is not."""
INTEGERS = range(-(2**63), 2**63)
REMEMBERED = 4096
"""Attributes whose message is not made again."""
SHORT = 64
"""Characters at most of their values."""

KINDS = {SpanKind.INTERNAL: ProtoSpan.SPAN_KIND_INTERNAL, SpanKind.CLIENT: ProtoSpan.SPAN_KIND_CLIENT}


def encode_spans(spans: Iterable[Span]) -> ExportTraceServiceRequest:
    """The spans under their agents' resources, in their order as far as they share one."""
    request = ExportTraceServiceRequest()
    groups: dict[bytes, ScopeSpans] = {}
    for span in spans:
        group = groups.get(span.resource.encoded)
        if group is None:
            resource_spans = request.resource_spans.add()
            group = groups[span.resource.encoded] = _scope_spans(resource_spans, span.resource.encoded)
        group.spans.append(encode_span(span))
    return request


def encode_span(span: Span) -> ProtoSpan:
    """One span as OTLP's message."""
    return ProtoSpan(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_span_id,
        flags=PARENT_KNOWN | PARENT_IS_LOCAL | SAMPLED,
        name=span.name,
        kind=KINDS[span.kind],
        start_time_unix_nano=span.start,
        end_time_unix_nano=span.end,
        attributes=_attributes(span.attributes),
        events=[
            ProtoSpan.Event(time_unix_nano=event.time, name=event.name, attributes=_attributes(event.attributes))
            for event in span.events
        ],
        links=[
            ProtoSpan.Link(trace_id=link.trace_id, span_id=link.span_id, attributes=_attributes(link.attributes))
            for link in span.links
        ],
        dropped_attributes_count=span.dropped_attributes,
        dropped_events_count=span.dropped_events,
        dropped_links_count=span.dropped_links,
        status=Status(code=Status.STATUS_CODE_ERROR, message=span.error) if span.error else None,
    )


def joined(requests: Iterable[ExportTraceServiceRequest]) -> ExportTraceServiceRequest:
    """One request with all their spans."""
    whole = ExportTraceServiceRequest()
    for request in requests:
        whole.MergeFrom(request)
    return whole


def to_otlp_json(request: ExportTraceServiceRequest) -> str:
    """OTLP/JSON: hexadecimal ids, lowerCamelCase names, enums as numbers (OTLP, JSON Protobuf Encoding)."""
    document = MessageToDict(request, use_integers_for_enums=True)
    _hexadecimal_ids(document)
    return json.dumps(document, ensure_ascii=False, indent=1)


def _hexadecimal_ids(node: Any) -> None:
    """Protobuf's JSON writes bytes as base64, where OTLP wants hexadecimal for the three ids."""
    if isinstance(node, list):
        for member in node:
            _hexadecimal_ids(member)
    elif isinstance(node, dict):
        for name, member in node.items():
            if name in ("traceId", "spanId", "parentSpanId") and isinstance(member, str):
                node[name] = base64.b64decode(member).hex()
            else:
                _hexadecimal_ids(member)


def _scope_spans(resource_spans: ResourceSpans, resource: bytes) -> ScopeSpans:
    resource_spans.resource.ParseFromString(resource)  # the agent's, of a schema that only the agent knows
    scope_spans = resource_spans.scope_spans.add(schema_url=SCHEMA_URL)
    scope_spans.scope.name = SCOPE
    scope_spans.scope.version = RULES_VERSION
    return scope_spans


def _attributes(attributes: Attributes) -> list[KeyValue]:
    return [
        _remembered(key, value) if isinstance(value, str | int) and len(str(value)) <= SHORT else _attribute(key, value)
        for key, value in attributes.items()
    ]


def _attribute(key: str, value: Value) -> KeyValue:
    return KeyValue(key=key, value=_any_value(value))


_remembered = lru_cache(REMEMBERED, typed=True)(_attribute)
"""The same: most of what stands on spans are a few words and small numbers. Messages copy what they are given."""


def _any_value(value: Value) -> AnyValue:
    match value:
        case bool():  # before int, of which it is a kind
            return AnyValue(bool_value=value)
        case int() if value not in INTEGERS:
            return AnyValue(string_value=str(value))  # JSON has no bound, and the attribute is still worth having
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case str():
            return AnyValue(string_value=value)
        case _:
            return AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=member) for member in value]))
