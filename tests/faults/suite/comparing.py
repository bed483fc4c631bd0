"""Spans of two runs, compared byte for byte."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from tests.sidecar import SpanKey

Spans = dict[SpanKey, set[bytes]]
"""Each span, with the different bytes that it came in, its resource and its scope included: one, if all is well."""


def add_spans(request: bytes, spans: Spans) -> None:
    """Add those of an ExportTraceServiceRequest, each as a request with this span alone."""
    for resource_spans in ExportTraceServiceRequest.FromString(request).resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                spans.setdefault((span.trace_id, span.span_id), set()).add(_alone(resource_spans, scope_spans, span))


def _alone(resource_spans: ResourceSpans, scope_spans: ScopeSpans, span: Span) -> bytes:
    scope = ScopeSpans(scope=scope_spans.scope, schema_url=scope_spans.schema_url, spans=[span])
    alone = ResourceSpans(resource=resource_spans.resource, schema_url=resource_spans.schema_url, scope_spans=[scope])
    return alone.SerializeToString(deterministic=True)


@dataclass(frozen=True)
class Differences:
    """How the spans of a disturbed run differ from those of the undisturbed one. A span counts once."""

    lost: int = 0
    unexpected: int = 0
    parents: int = 0
    """Spans under another parent."""
    contents: int = 0
    """Spans of the same parent with other bytes."""
    variants: int = 0
    """Spans that came more than once, with different bytes."""

    @property
    def total(self) -> int:
        return self.lost + self.unexpected + self.parents + self.contents + self.variants


def compare(expected: Spans, found: Spans) -> Differences:
    """Count the differences; ``expected`` has each span once."""
    parents = contents = variants = 0
    for key in expected.keys() & found.keys():
        if len(found[key]) > 1:
            variants += 1
        elif _parents(found[key]) != _parents(expected[key]):
            parents += 1
        elif found[key] != expected[key]:
            contents += 1
    lost, unexpected = len(expected.keys() - found.keys()), len(found.keys() - expected.keys())
    return Differences(lost, unexpected, parents, contents, variants)


def _parents(variants: Iterable[bytes]) -> set[bytes]:
    return {ResourceSpans.FromString(data).scope_spans[0].spans[0].parent_span_id for data in variants}
