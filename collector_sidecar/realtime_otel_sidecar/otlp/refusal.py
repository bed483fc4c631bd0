"""What a collector refuses for good: finding it, so that nothing else waits behind it.

By OTLP's rules such an answer is final for the request that it was given to. But which spans it is about it does not
say, nor whether it is about spans at all: a collector whose own exporter is set up wrongly may give it to everything.
So spans are set aside only after the collector has taken others, and only those that it refuses one by one.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ..store.rows import DeadLetter

Row = tuple[int, bytes]
"""An outbox row: its id, and an encoded ExportTraceServiceRequest."""

RETRYABLE = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
MISCONFIGURED = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.NOT_FOUND,
    }
)
"""A wrong address or a missing credential: no refusal of the spans, which wait until it is mended."""
PROBES = 16
"""Rows, and then spans, with which a collector that has refused a request is asked whether it takes any."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request was answered with: taken, refused for good, or to be sent again after ``delay`` seconds."""

    taken: bool = False
    refused: bool = False
    delay: float = 0.0
    code: grpc.StatusCode = grpc.StatusCode.OK
    problem: str = ""
    """The code and what was said."""
    hint: str = ""
    """Which settings it may be about."""
    said: str = ""
    """Of what was taken: what was told of it besides."""
    rejected: int = 0
    """Of what was taken: spans that were dropped all the same, by OTLP's partial success. They are lost."""


def pieces(request: bytes, max_bytes: int) -> Iterator[bytes]:
    """The request as one or several of at most this size; a span that is larger is alone."""
    if len(request) <= max_bytes:
        yield request
        return
    joined = b""
    for span in single_spans(request):
        if joined and len(joined) + len(span) > max_bytes:
            yield joined
            joined = b""
        joined += span  # requests end to end are one request with all their spans
    yield joined


def single_spans(request: bytes) -> Iterator[bytes]:
    """A request for each span; bytes that are no request, by damage, are one."""
    try:
        parsed = ExportTraceServiceRequest.FromString(request)
    except DecodeError:
        yield request
        return
    for resource_spans in parsed.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                alone = ExportTraceServiceRequest()
                its_resource = alone.resource_spans.add(schema_url=resource_spans.schema_url)
                its_resource.resource.CopyFrom(resource_spans.resource)
                its_scope = its_resource.scope_spans.add(schema_url=scope_spans.schema_url)
                its_scope.scope.CopyFrom(scope_spans.scope)
                its_scope.spans.append(span)
                yield alone.SerializeToString()


def probes(rows: list[Row], newest: Row | None) -> Iterator[bytes]:
    """Requests that might be taken where all these rows together were refused.

    The newest row of all is far from a cluster of bad ones at the front. Then some of the rows, and some of their
    spans: others each time, so that a good one is found at last.
    """
    if newest is not None:
        yield newest[1]
    yield from _some([data for _, data in rows])
    yield from _some([span for _, data in rows for span in single_spans(data)])


def _some(requests: list[bytes]) -> list[bytes]:
    return random.sample(requests, min(len(requests), PROBES))


def letter(span: bytes, reason: str) -> DeadLetter:
    """A refused span as it is kept, with its trace's id in hexadecimal in the place of its stream's."""
    try:
        (resource_spans,) = ExportTraceServiceRequest.FromString(span).resource_spans
        trace = resource_spans.scope_spans[0].spans[0].trace_id.hex()
    except (DecodeError, ValueError, IndexError):
        trace = ""
    return DeadLetter(time.time_ns(), f"refused by the collector: {reason}", trace, span)
