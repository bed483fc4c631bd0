"""OTLP/JSON as it stands in files: a request a line, as the Collector's file exporter writes it, or one in the file.

The encoding is that of the OTLP specification (JSON Protobuf Encoding): ids are hexadecimal, unknown fields are passed
over.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Final

from google.protobuf.json_format import ParseDict, ParseError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

IDS: Final = ("traceId", "spanId", "parentSpanId")
KINDS: Final = ("resourceLogs", "resourceSpans", "resourceMetrics", "resourceProfiles")
"""What a request of OTLP has at its top; the last two are of no use here."""

Request = ExportLogsServiceRequest | ExportTraceServiceRequest


def is_otlp(line: bytes) -> bool:
    """Whether a file that begins with this line holds OTLP/JSON.

    A document over several lines begins with a brace and nothing else that would make a line of a recording.
    """
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return line.lstrip().startswith(b"{") and (line.strip() == b"{" or any(kind.encode() in line for kind in KINDS))
    return isinstance(document, dict) and not document.keys().isdisjoint(KINDS)


def requests(first: bytes, rest: BinaryIO, problems: list[str]) -> Iterator[tuple[int, Request]]:
    """The number of each line, and the request in it; of a document over several lines the number of the first.

    A sentence for each line that holds none is added to the problems.
    """
    for number, text in _documents(first, rest):
        if not text.strip():
            continue
        try:
            yield from ((number, request) for request in _parse(json.loads(text)))
        except (ValueError, RecursionError, ParseError) as error:
            problems.append(f"line {number}: not OTLP/JSON: {error}")


def _documents(first: bytes, rest: BinaryIO) -> Iterable[tuple[int, bytes]]:
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return [(1, first + rest.read())]
    return enumerate(_chained(first, rest), 1)


def _chained(first: bytes, rest: BinaryIO) -> Iterator[bytes]:
    yield first
    yield from rest


def _parse(document: Any) -> Iterator[Request]:
    if not isinstance(document, dict):
        raise ValueError("not an object")
    if document.keys().isdisjoint(KINDS):
        raise ValueError(f"none of {', '.join(KINDS[:2])} is in it")
    for kind, make in (("resourceLogs", ExportLogsServiceRequest), ("resourceSpans", ExportTraceServiceRequest)):
        if kind in document:
            yield ParseDict(_base64_ids({kind: document[kind]}), make(), ignore_unknown_fields=True)


def _base64_ids(node: Any) -> Any:
    """The same with ids as protobuf's own JSON wants them."""
    if isinstance(node, list):
        return [_base64_ids(member) for member in node]
    if not isinstance(node, dict):
        return node
    return {
        name: _base64(member) if name in IDS and isinstance(member, str) else _base64_ids(member)
        for name, member in node.items()
    }


def _base64(hexadecimal: str) -> str:
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode("ascii")
