"""The bytes are those that the protobuf classes write."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from realtime_otel import wire

int64 = st.integers(-(2**63), 2**63 - 1)
scalars = st.text() | st.booleans() | int64 | st.floats(allow_nan=False)


def any_value_of(value: Any) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case str():
            return AnyValue(string_value=value)
        case _:
            return AnyValue(array_value=ArrayValue(values=[any_value_of(element) for element in value]))


@given(st.text(min_size=1), scalars | st.lists(scalars, max_size=4))
def test_an_attribute_is_written_as_protobuf_writes_it(key: str, value: Any) -> None:
    expected = LogRecord(attributes=[KeyValue(key=key, value=any_value_of(value))])

    assert wire.attribute(key, value) == expected.SerializeToString()


@given(st.text(min_size=1, max_size=120), st.text(max_size=200))
def test_the_fast_way_for_text_writes_the_same(key: str, value: str) -> None:
    assert wire.TextAttribute(key)(value) == wire.attribute(key, value)


@given(st.text(st.characters(codec="ascii"), min_size=1, max_size=100), st.integers(0, 2**63 - 1))
def test_the_fast_way_for_numbers_writes_the_same(key: str, value: int) -> None:
    assert wire.NumberAttribute(key)(value) == wire.attribute(key, value)


@given(st.dictionaries(st.text(min_size=1), scalars, max_size=5))
def test_a_resource_is_written_as_protobuf_writes_it(attributes: dict[str, Any]) -> None:
    expected = Resource(attributes=[KeyValue(key=key, value=any_value_of(value)) for key, value in attributes.items()])

    assert wire.resource(attributes) == expected.SerializeToString()


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 24))
def test_numbers_are_written_as_protobuf_writes_them(time: int, flags: int, severity: int) -> None:
    expected = LogRecord(time_unix_nano=time, severity_number=severity, flags=flags)  # type: ignore[arg-type]
    written = wire.fixed64(1, time) + wire.unsigned(2, severity) + wire.fixed32(8, flags)

    assert written == expected.SerializeToString()


@pytest.mark.parametrize("value", ["\ud800", "a\udfffb"])
def test_a_lone_surrogate_becomes_a_question_mark(value: str) -> None:
    written = LogRecord.FromString(wire.attribute("key", value))

    assert "?" in written.attributes[0].value.string_value


def test_a_value_of_no_type_of_otlp_is_written_as_its_text() -> None:
    written = LogRecord.FromString(wire.attribute("key", {"a": 1}))  # type: ignore[arg-type]

    assert written.attributes[0].value.string_value == "{'a': 1}"
