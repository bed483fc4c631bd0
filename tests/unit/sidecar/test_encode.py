"""Encoding: spans as OTLP wants them."""

from __future__ import annotations

import json
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from opentelemetry.semconv.schemas import Schemas

from realtime_otel import wire
from realtime_otel_sidecar.otlp.encode import SCHEMA_URL, encode_span, encode_spans, to_otlp_json
from realtime_otel_sidecar.stitch.spans import Link, Resource, Span, SpanEvent, SpanKind
from realtime_otel_sidecar.stitch.stitcher import RULES_VERSION

TRACE_ID, SPAN_ID, PARENT_ID = bytes(range(16)), b"span-id!", b"parent!!"


def span(name: str = "user_speech", service: str = "agent", **fields: Any) -> Span:
    encoded = wire.resource({"service.name": service})
    common: dict[str, Any] = {
        "trace_id": TRACE_ID,
        "span_id": SPAN_ID,
        "parent_span_id": PARENT_ID,
        "name": name,
        "start": 1_000,
        "end": 2_000,
        "attributes": {},
        "resource": Resource(encoded, "", service),
    }
    return Span(**common | fields)


def test_a_span_has_every_part_in_its_place() -> None:
    events = [SpanEvent(1_500, "log", {"severity": "INFO"}, 3)]
    encoded = encode_span(
        span(kind=SpanKind.CLIENT, events=events, links=[Link(TRACE_ID, PARENT_ID, {"kind": "cuts"})])
    )
    assert (encoded.trace_id, encoded.span_id, encoded.parent_span_id) == (TRACE_ID, SPAN_ID, PARENT_ID)
    assert (encoded.name, encoded.kind) == ("user_speech", ProtoSpan.SPAN_KIND_CLIENT)
    assert (encoded.start_time_unix_nano, encoded.end_time_unix_nano) == (1_000, 2_000)
    assert (encoded.events[0].name, encoded.events[0].time_unix_nano) == ("log", 1_500)
    assert (encoded.links[0].span_id, encoded.links[0].attributes[0].value.string_value) == (PARENT_ID, "cuts")


def test_a_span_that_leaves_is_sampled_and_its_parent_is_of_the_same_process() -> None:
    assert encode_span(span()).flags == 0x101


def test_the_status_is_unset_unless_the_span_failed() -> None:
    assert not encode_span(span()).HasField("status")
    failed = encode_span(span(error="rate_limit_exceeded"))
    assert (failed.status.code, failed.status.message) == (Status.STATUS_CODE_ERROR, "rate_limit_exceeded")


def test_attributes_keep_their_types() -> None:
    values = {"text": "a", "yes": True, "number": 5, "share": 0.5, "words": ["a", "b"], "huge": 2**70}
    encoded = {pair.key: pair.value for pair in encode_span(span(attributes=values)).attributes}
    assert encoded["text"].string_value == "a"
    assert encoded["yes"].bool_value is True
    assert encoded["number"].int_value == 5
    assert encoded["share"].double_value == 0.5
    assert [value.string_value for value in encoded["words"].array_value.values] == ["a", "b"]
    assert encoded["huge"].string_value == str(2**70), "beyond 64 bits"


def test_spans_are_grouped_under_their_agents_own_resources() -> None:
    request = encode_spans([span("one", "a"), span("two", "b"), span("three", "a")])
    groups = [
        (
            group.resource.attributes[0].value.string_value,
            [each.name for scope in group.scope_spans for each in scope.spans],
        )
        for group in request.resource_spans
    ]
    assert groups == [("a", ["one", "three"]), ("b", ["two"])]


def test_the_resource_passes_through_unchanged_even_what_is_not_known_here() -> None:
    unknown = wire.resource({"service.name": "agent"}) + wire.text(99, "from a newer OTLP")
    request = encode_spans([span(resource=Resource(unknown, "", "agent"))])
    assert request.resource_spans[0].resource.SerializeToString() == unknown


def test_the_scope_is_the_stitcher_with_the_version_of_its_rules_and_a_published_schema() -> None:
    (group,) = encode_spans([span()]).resource_spans
    (scope,) = group.scope_spans
    assert (scope.scope.name, scope.scope.version, scope.schema_url) == ("realtime-otel", RULES_VERSION, SCHEMA_URL)
    assert SCHEMA_URL in {schema.value for schema in Schemas}
    assert group.schema_url == "", "the resource's schema is the agent's, and is not known here"


def test_rows_end_to_end_are_one_request() -> None:
    rows = [encode_spans([span(name)]).SerializeToString() for name in ("one", "two")]
    joined = ExportTraceServiceRequest.FromString(b"".join(rows))
    assert [group.scope_spans[0].spans[0].name for group in joined.resource_spans] == ["one", "two"]


def test_an_attribute_is_its_own_whatever_was_encoded_before() -> None:
    for value in (1, True, 1.0, "1", 0, False, 0.0, -0.0, "", "x" * 100_000, 2**70, ["1"], ["2"]):
        for name in ("one", "other"):
            encoded = encode_span(span(attributes={name: value}))
            (attribute,) = encoded.attributes
            kind = attribute.value.WhichOneof("value")
            assert kind is not None
            found = getattr(attribute.value, kind)
            if kind == "array_value":
                found = [each.string_value for each in found.values]
            expected = str(value) if value == 2**70 else value
            assert (attribute.key, repr(found)) == (name, repr(expected))
            attribute.value.string_value = "changed by who has it"


def test_the_same_span_gives_the_same_bytes() -> None:
    assert encode_span(span()).SerializeToString() == encode_span(span()).SerializeToString()


def test_json_has_hexadecimal_ids_and_numbers_for_enums() -> None:
    document = json.loads(to_otlp_json(encode_spans([span(links=[Link(TRACE_ID, SPAN_ID)])])))
    encoded = document["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert encoded["traceId"] == TRACE_ID.hex()
    assert encoded["parentSpanId"] == PARENT_ID.hex()
    assert encoded["links"][0]["spanId"] == SPAN_ID.hex()
    assert encoded["kind"] == 1
    assert encoded["startTimeUnixNano"] == "1000"
