"""Decoding: what is a record of a conversation, what breaks the contract, and what strangers may send."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from realtime_otel import contract, wire
from realtime_otel_sidecar.otlp import attributes, decode
from realtime_otel_sidecar.otlp.decode import LARGEST_TIME, Broken, decode_request
from realtime_otel_sidecar.otlp.logs import framed
from realtime_otel_sidecar.stitch.record import Record
from realtime_otel_sidecar.stitch.rules import RecordLimits
from tests.conversations import STARTED, Logged, server
from tests.fuzz.mutation import KEYS
from tests.sidecar import conversation, one_by_one, record

STARTED_SPEAKING = server("input_audio_buffer.speech_started", event_id="event_1", item_id="item_1", audio_start_ms=5)
SPEECH = record([STARTED_SPEAKING], chosen=True)


def request_of(change: Callable[[LogRecord], object] = lambda _: None) -> bytes:
    """A request of one event, which the test may change."""
    return changed(SPEECH.request(), change)


def log_request_of(change: Callable[[LogRecord], object] = lambda _: None) -> bytes:
    """A request of one line that a tool has logged."""
    return changed(record([Logged("hello", "call_1")]).request(), change)


def changed(data: bytes, change: Callable[[LogRecord], object]) -> bytes:
    request = ExportLogsServiceRequest.FromString(data)
    change(request.resource_logs[0].scope_logs[0].log_records[0])
    return request.SerializeToString()


def put(key: str, value: AnyValue | None) -> Callable[[LogRecord], object]:
    """Give the record this attribute, or take it away."""

    def change(record: LogRecord) -> None:
        kept = [pair for pair in record.attributes if pair.key != key]
        del record.attributes[:]
        record.attributes.extend(kept)
        if value is not None:
            record.attributes.append(KeyValue(key=key, value=value))

    return change


def assign(**fields: object) -> Callable[[LogRecord], object]:
    def change(record: LogRecord) -> None:
        for name, value in fields.items():
            setattr(record, name, value)

    return change


def said(text: str) -> Callable[[LogRecord], object]:
    """Another body."""
    return lambda record: record.body.CopyFrom(AnyValue(string_value=text))


def one(data: bytes) -> Record | Broken:
    (decoded,) = decode_request(data)
    return decoded


def record_of(data: bytes) -> Record:
    decoded = one(data)
    assert isinstance(decoded, Record)
    return decoded


def test_an_event_comes_through_as_the_emitter_stated_it() -> None:
    taken = record_of(SPEECH.request())
    assert taken == Record(
        type="input_audio_buffer.speech_started",
        time=STARTED + 10_000_000,
        stream_id="stream",
        chosen=True,
        emitter_id="of-stream",
        seq=0,
        started=STARTED,
        direction="server",
        trace_id=SPEECH.stream.trace_id,
        sampled=True,
        resource=taken.resource,
        event_id="event_1",
        item_id="item_1",
        body=taken.body,
    )
    assert (taken.resource.encoded, taken.resource.service) == (SPEECH.resource, "agent-stream")
    assert '"audio_start_ms":5' in taken.body


def test_every_record_of_a_conversation_decodes_in_its_order() -> None:
    told = conversation("whole", turns=4)
    decoded = [each for request in one_by_one(told) for each in decode_request(request)]
    assert [each.seq for each in decoded if isinstance(each, Record)] == list(range(len(told.records)))


def test_the_log_of_a_tool_is_a_log_line() -> None:
    line = record_of(log_request_of())
    assert line.log is not None
    assert (line.type, line.seq, line.call_id, line.body) == ("", 0, "call_1", "")
    assert (line.log.message, line.log.severity, line.log.logger) == ("hello", "INFO", "realtime-otel")


def test_records_of_other_services_are_passed_over() -> None:
    own_log = log_request_of(put(contract.STREAM_ID, None))
    assert list(decode_request(own_log)) == []
    assert list(decode_request(log_request_of(put(contract.STREAM_ID, AnyValue(int_value=5))))) == []
    assert list(decode_request(b"")) == []


INTEGER, TEXT = AnyValue(int_value=7), AnyValue(string_value="7")
BROKEN = {
    "without a stream id": put(contract.STREAM_ID, None),
    "a stream id that is no text": put(contract.STREAM_ID, INTEGER),
    "an empty stream id": put(contract.STREAM_ID, AnyValue(string_value="")),
    "without a version": put(contract.CONTRACT, None),
    "a version of the future": put(contract.CONTRACT, AnyValue(int_value=contract.VERSION + 1)),
    "version nought": put(contract.CONTRACT, AnyValue(int_value=0)),
    "a version that is true": put(contract.CONTRACT, AnyValue(bool_value=True)),
    "a version of a megabyte": put(contract.CONTRACT, AnyValue(string_value="1" * 2**20)),
    "without a start": put(contract.STREAM_STARTED, None),
    "a start before 1970": put(contract.STREAM_STARTED, AnyValue(int_value=-1)),
    "a start that is text": put(contract.STREAM_STARTED, TEXT),
    "a number that is text": put(contract.SEQ, TEXT),
    "a number that is an array": put(contract.SEQ, AnyValue(array_value=ArrayValue(values=[INTEGER]))),
    "a number below nought": put(contract.SEQ, AnyValue(int_value=-1)),
    "without a time": assign(time_unix_nano=0, observed_time_unix_nano=5),
    "a time beyond all sums": assign(time_unix_nano=2**64 - 1),
    "without a trace id": assign(trace_id=b""),
    "a trace id of zeros": assign(trace_id=bytes(16)),
    "a short trace id": assign(trace_id=b"12345678"),
    "a name of a megabyte": lambda record: (
        put(contract.STREAM_ID, None)(record),
        assign(event_name="openai.realtime." + "a" * 2**20)(record),
    ),
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_an_event_that_breaks_the_contract_is_told_apart_with_a_short_reason(
    change: Callable[[LogRecord], object],
) -> None:
    broken = one(request_of(change))
    assert isinstance(broken, Broken)
    assert 0 < len(broken.reason) < 250
    assert LogRecord.FromString(broken.encoded).event_name.startswith("openai.realtime.")


def test_only_the_record_that_breaks_the_contract_is_told_apart() -> None:
    mixed = request_of() + request_of(put(contract.SEQ, TEXT)) + log_request_of()
    assert [type(decoded) for decoded in decode_request(mixed)] == [Record, Broken, Record]


LACKING = {name: change for name, change in BROKEN.items() if "stream id" not in name and "megabyte" not in name}


@pytest.mark.parametrize("change", LACKING.values(), ids=LACKING)
def test_a_log_line_is_never_rejected_but_loses_its_number(change: Callable[[LogRecord], object]) -> None:
    line = record_of(log_request_of(change))
    assert line.seq == -1
    assert 0 <= line.time <= LARGEST_TIME
    assert line.started >= 0


SMALL = RecordLimits(body_bytes=1000, body_depth=5, resource_bytes=300)
TOO_LARGE = {
    '"' + "x" * 998 + '"': "",
    '"' + "x" * 999 + '"': "the body has more than 1000 bytes (max_body_kib)",
    '"' + "日" * 333 + '"': "the body has more than 1000 bytes (max_body_kib)",
    '{"a": [{"b": [{}]}]}': "",
    '{"a": [{"b": [{"c": []}]}]}': "the body is nested more than 5 deep (max_body_depth)",
    "[" * 900: "the body is nested more than 5 deep (max_body_depth)",
    "[[], [], [], [], {}, {}, {}, [[[[]]]]]": "",
    r'{"a": "[[[[[[[[\"[[[[[{{{{{{", "b": [[[[]]]]}': "",
    r'{"a": "\\", "b": [[[[[]]]]]}': "the body is nested more than 5 deep (max_body_depth)",
    '"' + '\\"' * 400: "",
    "]" * 900: "",
}


@pytest.mark.parametrize(("body", "reason"), TOO_LARGE.items())
def test_a_body_larger_or_deeper_than_the_limit_breaks_the_contract(body: str, reason: str) -> None:
    data = request_of(said(body))
    (decoded,) = decode_request(data, SMALL)
    assert (decoded.reason if isinstance(decoded, Broken) else "") == reason


def test_a_log_line_may_have_any_message() -> None:
    data = log_request_of(said("[" * 2000))
    (decoded,) = decode_request(data, SMALL)
    assert isinstance(decoded, Record)
    assert decoded.seq == record_of(log_request_of()).seq >= 0


def test_every_event_of_a_resource_that_is_too_large_breaks_the_contract() -> None:
    request = ExportLogsServiceRequest.FromString(request_of() + log_request_of())
    for resource_logs in request.resource_logs:
        resource_logs.resource.attributes.add(key="app.config").value.string_value = "x" * 300
    event, line = decode_request(request.SerializeToString(), SMALL)
    assert isinstance(event, Broken)
    assert event.reason == "the resource has more than 300 bytes (max_resource_kib)"
    assert isinstance(line, Record)


def test_an_event_without_number_is_taken() -> None:
    assert record_of(request_of(put(contract.SEQ, None))).seq == -1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("00f067aa0ba902b7", bytes.fromhex("00f067aa0ba902b7")),
        ("0000000000000000", b""),
        ("00f067aa0ba902", b""),
        ("not hexadecimal!", b""),
        ("", b""),
    ],
)
def test_a_parent_that_is_no_span_id_is_none(text: str, expected: bytes) -> None:
    data = request_of(put(contract.PARENT_SPAN_ID, AnyValue(string_value=text)))
    assert record_of(data).parent_span_id == expected


def test_sizes_and_times_that_cannot_be_are_kept_within_bounds() -> None:
    assert record_of(request_of(put(contract.DELTA_SIZE, AnyValue(int_value=2**62)))).delta_size == 2**32
    assert record_of(request_of(put(contract.DELTA_SIZE, AnyValue(int_value=-1)))).delta_size == 0
    assert record_of(request_of(put(contract.AUDIO_FIRST, AnyValue(int_value=-1)))).audio_first == 0


def test_content_for_the_events_alone_is_told_by_each_record() -> None:
    for value, told in ((AnyValue(bool_value=True), True), (AnyValue(bool_value=False), False), (TEXT, False)):
        assert record_of(request_of(put(contract.CONTENT_EVENTS_ONLY, value))).events_only is told
    assert record_of(request_of()).events_only is False


def test_the_sampling_decision_is_the_records_own() -> None:
    assert record_of(request_of(assign(flags=0x00))).sampled is False
    assert record_of(request_of(assign(flags=0x301))).sampled is True


def test_a_defect_of_ours_costs_the_record_and_not_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "_too_large", lambda _body, _limits: 1 // 0)
    broken = one(request_of())
    assert isinstance(broken, Broken)
    assert broken.reason.startswith("internal error")


@pytest.mark.parametrize("data", [b"\xff", request_of()[:-3], b"not protobuf at all"])
def test_bytes_that_are_no_request_are_an_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        list(decode_request(data))


def test_a_name_without_a_type_breaks_the_contract() -> None:
    broken = one(request_of(assign(event_name="openai.realtime.")))
    assert isinstance(broken, Broken)
    assert "type" in broken.reason


# --- What is known of a stream --------------------------------------------------------------------------------------

CONVERSATION = conversation("whole", turns=2)
RECORDS = [
    ExportLogsServiceRequest.FromString(request).resource_logs[0].scope_logs[0].log_records[0]
    for request in one_by_one(CONVERSATION)
]
TEXTS = [AnyValue(string_value=text) for text in ("", "stream", "item_1", "00f067aa0ba902b7")]
NUMBERS = [AnyValue(int_value=number) for number in (-1, 0, 1, 7, 2**32, 2**63 - 1)]
OTHERS = [AnyValue(bool_value=True), AnyValue(double_value=1.0), AnyValue(bytes_value=b"\xff"), AnyValue()]
STRANGE: list[dict[str, object]] = [
    {"flags": 0},
    {"flags": 0x301},
    {"trace_id": b"1" * 16},
    {"trace_id": b""},
    {"time_unix_nano": 0},
    {"event_name": "openai.realtime.unheard_of"},
    {"event_name": "a log line"},
    {"event_name": ""},
]


def forget() -> None:
    """Read the next request as the first one of a process."""
    attributes.known.clear()
    decode._streams.clear()


def anew(data: bytes) -> list[Record | Broken]:
    """Each record of a request as if it were the first."""
    request, found = ExportLogsServiceRequest.FromString(data), []
    for resource_logs in request.resource_logs:
        for scope_logs in resource_logs.scope_logs:
            for log_record in scope_logs.log_records:
                forget()
                scope = ScopeLogs(scope=scope_logs.scope, log_records=[log_record])
                alone = ResourceLogs(resource=resource_logs.resource, scope_logs=[scope])
                found += decode_request(ExportLogsServiceRequest(resource_logs=[alone]).SerializeToString(), SMALL)
    return found


@st.composite
def any_record(draw: st.DrawFn) -> LogRecord:
    """A record of a conversation in which something is different, its attributes in any order, some of them twice."""
    log_record = LogRecord()
    log_record.CopyFrom(draw(st.sampled_from(RECORDS[:40])))
    for key, value in draw(
        st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from([*TEXTS, *NUMBERS, *OTHERS])), max_size=2)
    ):
        if draw(st.booleans()):
            put(key, value)(log_record)
        else:
            log_record.attributes.append(KeyValue(key=key, value=value))
    if draw(st.integers(0, 3)) == 0:
        pairs = draw(st.permutations(list(log_record.attributes)))
        del log_record.attributes[:]
        log_record.attributes.extend(pairs)
    if draw(st.integers(0, 5)) == 0:
        assign(**draw(st.sampled_from(STRANGE)))(log_record)
    return log_record


@given(st.lists(st.tuples(st.integers(0, 1), any_record()), max_size=12))
def test_what_was_read_before_changes_nothing(given_records: list[tuple[int, LogRecord]]) -> None:
    resources = [Resource.FromString(CONVERSATION.resource), Resource()]
    request = ExportLogsServiceRequest(
        resource_logs=[
            ResourceLogs(resource=resources[number], scope_logs=[ScopeLogs(log_records=[log_record])])
            for number, log_record in given_records
        ]
    )
    data = request.SerializeToString()
    expected = anew(data)
    assert decode_request(data, SMALL) == expected
    assert decode_request(data, SMALL) == expected
    for one_resource in request.resource_logs:
        assert all(
            each in expected
            for each in decode_request(
                ExportLogsServiceRequest(resource_logs=[one_resource]).SerializeToString(), SMALL
            )
        )


def test_any_number_of_streams_and_attributes_is_read_and_a_bounded_number_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decode, "STREAMS", 2)
    monkeypatch.setattr(attributes, "MOST_KNOWN", 20)
    forget()
    recordings = [conversation(f"stream-{number}", turns=1) for number in range(5)]
    for _ in range(2):
        for recording in recordings:
            decoded = decode_request(recording.request())
            assert [each.seq for each in decoded if isinstance(each, Record)] == list(range(len(recording.records)))
            assert len(decode._streams) <= 2
            assert len(attributes.known) <= 20


@pytest.mark.parametrize("key", [contract.STREAM_ID, contract.AGENT_NAME, contract.ITEM_ID])
def test_what_a_stranger_makes_large_is_read_and_not_remembered(key: str) -> None:
    large = AnyValue(string_value="x" * 100_000)

    def in_place(log_record: LogRecord) -> None:
        pairs = {pair.key: pair.value for pair in log_record.attributes}
        first = {name: pairs.pop(name) for name in (contract.CONTRACT, contract.STREAM_ID)}
        del log_record.attributes[:]
        for name, value in {**first, contract.AGENT_NAME: AnyValue(string_value="a"), **pairs, key: large}.items():
            log_record.attributes.add(key=name, value=large if name == key else value)

    forget()
    for _ in range(2):
        (event,) = decode_request(request_of(in_place))
        assert isinstance(event, Record)
        assert "x" * 100_000 in (event.stream_id, event.agent_name, event.item_id)
    assert len(repr(decode._streams)) < 100_000


def test_with_streams_no_more_than_so_much_of_their_resources_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "RESOURCE_BYTES", 100_000)
    forget()
    for number in range(20):
        request = ExportLogsServiceRequest.FromString(record([STARTED_SPEAKING], f"stream-{number}").request())
        request.resource_logs[0].resource.attributes.add(key="app.config").value.string_value = "x" * 20_000
        for _ in range(2):
            (event,) = decode_request(request.SerializeToString())
            assert isinstance(event, Record)
            assert event.stream_id == f"stream-{number}"
        assert sum(len(stream.resource.encoded) for stream in decode._streams.values()) <= 100_000
    assert decode._streams


def test_a_resource_that_is_too_large_is_not_remembered() -> None:
    request = ExportLogsServiceRequest.FromString(log_request_of())
    resources = []
    for size in (10, 10, 300, 300):
        del request.resource_logs[0].resource.attributes[:]
        request.resource_logs[0].resource.attributes.add(key="app.config").value.string_value = "x" * size
        (line,) = decode_request(request.SerializeToString(), SMALL)
        assert isinstance(line, Record)
        resources.append(line.resource)
    assert resources[0] is resources[1]
    assert resources[2] == resources[3]
    assert resources[2] is not resources[3]


@pytest.mark.parametrize("depth", range(40, 55))
def test_an_attribute_is_as_deep_as_protobuf_takes_it_in_a_request(depth: int) -> None:
    value = wire.any_value("x")
    for _ in range(depth):
        value = wire.delimited(5, wire.delimited(1, value))  # an array of one
    data = framed(wire.text(1, "app.nested") + wire.delimited(2, value))
    forget()
    try:
        ExportLogsServiceRequest.FromString(data)
    except DecodeError:
        with pytest.raises(DecodeError):
            decode_request(data)
    else:
        assert decode_request(data) == []


def test_an_id_that_is_no_text_is_no_request() -> None:
    data = request_of(put(contract.EVENT_ID, AnyValue(string_value="event_of_mine")))
    with pytest.raises(DecodeError):
        decode_request(data.replace(b"event_of_mine", b"event_of_\xff\xfe\xfd\xfc"))
