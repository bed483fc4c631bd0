"""Records are counted as the decoder would find them, and before they take any memory."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from realtime_otel_sidecar.otlp.counting import count_records
from tests.sidecar import conversation

MOST = 10**9
REQUEST = conversation("one").request()

RECORDS = st.builds(
    LogRecord,
    time_unix_nano=st.integers(0, 2**64 - 1),
    flags=st.integers(0, 2**32 - 1),
    dropped_attributes_count=st.integers(0, 2**32 - 1),
    body=st.builds(AnyValue, string_value=st.text(max_size=300)),
    attributes=st.lists(st.builds(KeyValue, key=st.text(max_size=3)), max_size=3),
)
SCOPES = st.builds(
    ScopeLogs,
    scope=st.builds(InstrumentationScope, name=st.text(max_size=5)),
    log_records=st.lists(RECORDS, max_size=4),
    schema_url=st.text(max_size=5),
)
RESOURCES = st.builds(
    ResourceLogs, resource=st.builds(Resource), scope_logs=st.lists(SCOPES, max_size=3), schema_url=st.text(max_size=5)
)
REQUESTS = st.builds(ExportLogsServiceRequest, resource_logs=st.lists(RESOURCES, max_size=3))


def found(request: ExportLogsServiceRequest) -> int:
    """Records, and the groups that hold them."""
    scopes = [scope for resource in request.resource_logs for scope in resource.scope_logs]
    return len(request.resource_logs) + len(scopes) + sum(len(scope.log_records) for scope in scopes)


@given(REQUESTS)
def test_as_many_are_counted_as_are_decoded(request: ExportLogsServiceRequest) -> None:
    assert count_records(request.SerializeToString(), MOST) == found(request)


@given(st.data())
def test_what_the_decoder_takes_is_counted_whatever_it_is(data: st.DataObject) -> None:
    """Fields of later versions, of any wire type that has a length, and bytes that were changed."""
    encoded = bytearray(data.draw(REQUESTS).SerializeToString() + b"\x78\x01\x7d1234\x7912345678\x7a\x01x")
    for _ in range(data.draw(st.integers(0, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        counted = count_records(bytes(encoded), MOST)
    except DecodeError:
        return  # so are groups, which the decoder would skip, and which OTLP does not have
    try:
        request = ExportLogsServiceRequest.FromString(bytes(encoded))
    except DecodeError:
        return
    assert counted == found(request)


def test_a_number_that_is_written_in_more_bytes_than_it_needs_is_the_same_number() -> None:
    long_tag = b"\x8a\x80\x00" + b"\x82\x80\x00" + b"\x12\x00"
    assert found(ExportLogsServiceRequest.FromString(long_tag)) == 2
    assert count_records(long_tag, MOST) == 2


@pytest.mark.parametrize("cut", range(1, len(REQUEST), 997))
def test_what_is_cut_off_is_no_request(cut: int) -> None:
    with pytest.raises(DecodeError):
        count_records(REQUEST[:cut], MOST)


@pytest.mark.parametrize("data", [b"\x0b\x0c", b"\x0e", b"\xff" * 11, b"\x80", b"\x79123", b"\x7d1"])
def test_bytes_of_another_form_are_no_request(data: bytes) -> None:
    with pytest.raises(DecodeError):
        count_records(data, MOST)


def test_counting_ends_where_there_are_too_many() -> None:
    empty = b"\x0a\x00" * 50 + b"\xff"  # what comes behind is not looked at
    assert count_records(empty, 49) == 50
    with pytest.raises(DecodeError):
        count_records(empty, 50)
