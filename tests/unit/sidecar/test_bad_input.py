"""Bad input to the sidecar, over real gRPC and on a real store: what the client gets, what is kept, what goes on."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from realtime_otel import contract
from realtime_otel.contract import Fact
from realtime_otel_sidecar.service import Sidecar
from realtime_otel_sidecar.stitch.bodies import is_deeper
from realtime_otel_sidecar.stitch.session import Session
from tests.conversations import fact, opened, response_created
from tests.fuzz.mutation import HOSTILE_JSON, KEYS
from tests.fuzz.oracles import check_encoded, placed
from tests.fuzz.targets import request_seeds
from tests.properties.arriving import share
from tests.sidecar import Client, Contents, code_of, contents, conversation, interleaved, record
from tests.unit.sidecar.rig import Rig, read_only, stitched
from tests.unit.sidecar.test_decode import BROKEN, assign, changed, log_request_of, put, request_of
from tests.unit.sidecar.test_service import settings

GOOD: Final = [conversation("one", turns=2), conversation("two", turns=3, chosen=True)]
REQUESTS: Final = interleaved(GOOD, size=30)
EXPECTED: Final = stitched(REQUESTS)


class Kept(NamedTuple):
    """What there is after a request."""

    spans: Contents
    dead_letters: list[tuple[str, str]]
    """Reason and stream of each."""


def kept(folder: Path) -> Kept:
    """What the store holds; every request of spans in it is one that a backend can take."""
    with read_only(folder) as connection:
        rows = [data for (data,) in connection.execute("SELECT data FROM outbox")]
        dead_letters = connection.execute("SELECT reason, stream FROM dead_letters ORDER BY id").fetchall()
    for data in rows:
        check_encoded(data)
    return Kept(contents(rows), dead_letters)


def answer_to(client: Client, request: bytes) -> grpc.StatusCode:
    try:
        client.send(request)
    except grpc.RpcError as error:
        return code_of(error)
    return grpc.StatusCode.OK


def of_the_good(spans: Contents) -> Contents:
    return {key: data for key, data in spans.items() if key in EXPECTED}


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[Sidecar]:
    with Sidecar(settings(tmp_path, drain_timeout=0)) as started:
        yield started


@pytest.fixture
def client(sidecar: Sidecar) -> Iterator[Client]:
    with Client(sidecar.port) as connected:
        yield connected


def with_good(bad: bytes) -> bytes:
    """The good conversations in one request, and the bad records in their middle."""
    half = len(REQUESTS) // 2
    return b"".join([*REQUESTS[:half], bad, *REQUESTS[half:]])


# --- What is rejected -----------------------------------------------------------------------------------------------


def body(text: str) -> bytes:
    return request_of(lambda changing: changing.body.CopyFrom(AnyValue(string_value=text)))


REJECTED: Final = {name: request_of(change) for name, change in BROKEN.items()} | {
    "a body of a megabyte": body('{"type":"' + "a" * 2**20 + '"}'),
    "a body of brackets": body("[" * 100_000),
}


@pytest.mark.parametrize("name", REJECTED)
def test_a_record_that_breaks_the_contract_is_rejected_alone_and_kept(
    name: str, client: Client, tmp_path: Path
) -> None:
    answer = client.send(with_good(REJECTED[name])).partial_success

    assert answer.rejected_log_records == 1
    found = kept(tmp_path)
    has_stream = contract.STREAM_ID not in answer.error_message
    assert found.dead_letters == [(answer.error_message, "stream" if has_stream else "")]
    assert found.spans == EXPECTED


VALUES: Final = {
    "string": AnyValue(string_value="1"),
    "bool": AnyValue(bool_value=True),
    "int": AnyValue(int_value=-5),
    "double": AnyValue(double_value=float("nan")),
    "bytes": AnyValue(bytes_value=b"\xff"),
    "array": AnyValue(array_value=ArrayValue(values=[AnyValue(string_value="1")])),
    "kvlist": AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="1", value=AnyValue(int_value=1))])),
    "empty": AnyValue(),
}
NEEDED: Final = {contract.CONTRACT: (), contract.STREAM_ID: ("string",), contract.STREAM_STARTED: (), contract.SEQ: ()}
"""What no event can do without, with the kinds among `VALUES` that are right."""


SPOKEN: Final = record([fact(Fact.ANNOTATION, attributes={"tenant": "north"}, call_id="call_1")], "strange").request()


@pytest.mark.parametrize("name", KEYS)
def test_an_attribute_of_another_type_is_none_or_costs_its_record(name: str, client: Client, tmp_path: Path) -> None:
    strange = [changed(SPOKEN, put(name, value)) for value in VALUES.values()]
    rejected = len(VALUES) - len(NEEDED[name]) if name in NEEDED else 0

    answer = client.send(with_good(b"".join(strange))).partial_success

    assert answer.rejected_log_records == rejected
    assert len(answer.error_message) < 250
    found = kept(tmp_path)
    assert len(found.dead_letters) == rejected
    assert of_the_good(found.spans) == EXPECTED


# --- What is taken --------------------------------------------------------------------------------------------------


HARMLESS: Final = {
    "a log of another service": log_request_of(put(contract.STREAM_ID, None)),
    "a log with a number of a stream": log_request_of(),
    "a log with a stream id and no number": log_request_of(put(contract.SEQ, None)),
    "a log without a time": log_request_of(assign(time_unix_nano=0, observed_time_unix_nano=0)),
    "a log without ids": log_request_of(assign(trace_id=b"", span_id=b"")),
    "an event without a span id": request_of(assign(span_id=b"")),
    "a span id of zeros": request_of(assign(span_id=bytes(8))),
    "an event of 1970": request_of(assign(time_unix_nano=1)),
    "an event of 2262": request_of(assign(time_unix_nano=2**63 - 1)),
    "a start in 1970": request_of(put(contract.STREAM_STARTED, AnyValue(int_value=0))),
    "a start in 2262": request_of(put(contract.STREAM_STARTED, AnyValue(int_value=2**63 - 1))),
    "the largest number": request_of(put(contract.SEQ, AnyValue(int_value=2**63 - 1))),
    "a body that is no text": request_of(lambda changing: changing.body.CopyFrom(AnyValue(bytes_value=b"\xff"))),
    "no body": request_of(lambda changing: changing.ClearField("body")),
    "a body that is a number without end": body("9" * 100_000),
    "hostile bodies": b"".join(body(text) for text in HOSTILE_JSON if not is_deeper(text, 64)),
    "an event that nobody knows": request_of(assign(event_name="openai.realtime.un heard\x00of")),
    "an event of a megabyte": request_of(assign(event_name="openai.realtime." + "a" * 2**20)),
    "nothing at all": b"",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_only_strange_is_taken_and_touches_no_other_stream(name: str, client: Client, tmp_path: Path) -> None:
    answer = client.send(with_good(HARMLESS[name]))

    assert not answer.HasField("partial_success")
    found = kept(tmp_path)
    assert found.dead_letters == []
    assert of_the_good(found.spans) == EXPECTED


def test_records_behind_the_close_are_answered_with_ok_and_kept(client: Client, tmp_path: Path) -> None:
    late = record([fact(Fact.HEARTBEAT), fact(Fact.STREAM_CLOSED), fact(Fact.HEARTBEAT)], "late")
    assert not client.send(late.request()).HasField("partial_success")
    assert not client.send(with_good(late.request(2))).HasField("partial_success")
    found = kept(tmp_path)
    assert found.dead_letters == [("after_close", "late")] * 2
    assert of_the_good(found.spans) == EXPECTED


# --- What is refused whole ------------------------------------------------------------------------------------------


WHOLE: Final = REQUESTS[0]
REFUSED: Final = {
    "a message that has no end": b"\xff" * 2**20,
    "no UTF-8": WHOLE.replace(contract.DIRECTION.encode(), contract.DIRECTION.encode()[:-2] + b"\xff\xfe"),
    "JSON": b'{"resourceLogs":[]}',
    "text": b"GET / HTTP/1.1\r\n\r\n",
    "nested without end": b"\x0a\x7f" * 100_000,
    **{f"cut behind {at} bytes": WHOLE[:at] for at in range(1, len(WHOLE), len(WHOLE) // 9)},
}


@pytest.mark.parametrize("name", REFUSED)
def test_bytes_that_are_no_request_are_an_invalid_argument_and_leave_nothing(
    name: str, client: Client, tmp_path: Path
) -> None:
    assert answer_to(client, REFUSED[name]) is grpc.StatusCode.INVALID_ARGUMENT
    assert kept(tmp_path) == Kept({}, [])
    client.send(with_good(b""))
    assert kept(tmp_path).spans == EXPECTED


def test_whatever_bytes_come_the_answer_is_ok_or_invalid_argument_and_the_next_request_is_served(
    client: Client, tmp_path: Path
) -> None:
    chance = random.Random(1)
    other = record([fact(Fact.HEARTBEAT)] * 20, "other").request()
    for number in range(300):
        at = chance.randrange(len(other))
        flipped = other[:at] + bytes([other[at] ^ (1 << chance.randrange(8))]) + other[at + 1 :]
        answer = answer_to(client, chance.randbytes(chance.randrange(200)) if number % 3 == 0 else flipped)
        assert answer in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT)
    client.send(with_good(b""))
    assert of_the_good(kept(tmp_path).spans) == EXPECTED


# --- A defect of ours -----------------------------------------------------------------------------------------------


def test_a_defect_on_a_record_ends_its_stream_and_the_client_gets_ok(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply = Session._apply

    def fails_on_one(session: Session, taken: Any, rules: Any) -> None:
        if taken.stream_id == "poisoned" and taken.type == Fact.HEARTBEAT:
            raise RuntimeError("a defect")
        apply(session, taken, rules)

    monkeypatch.setattr(Session, "_apply", fails_on_one)
    poisoned = record([*opened(), *response_created("resp_1"), fact(Fact.HEARTBEAT), fact(Fact.HEARTBEAT)], "poisoned")

    assert not client.send(with_good(poisoned.request())).HasField("partial_success")

    found = kept(tmp_path)
    assert found.dead_letters == [("internal_error", "poisoned"), ("after_close", "poisoned")]
    assert of_the_good(found.spans) == EXPECTED
    assert len(found.spans) == len(EXPECTED) + 2, "the session of the other, and what was open in it"


# --- Any broken records ---------------------------------------------------------------------------------------------


STRANGE: Final = [
    log_record for _, _, log_record in placed(ExportLogsServiceRequest.FromString(request_seeds()["two streams"]))
]


@st.composite
def any_log_record(draw: st.DrawFn) -> LogRecord:
    """A record of another conversation's, in which a few things are wrong; or one of no conversation."""
    log_record = LogRecord()
    log_record.CopyFrom(draw(st.sampled_from(STRANGE)))
    for name, value in draw(
        st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(list(VALUES.values()))), max_size=3)
    ):
        put(name, value)(log_record)
    if draw(st.booleans()):
        log_record.time_unix_nano = draw(st.sampled_from([0, 1, 2**63 - 1, 2**64 - 1]))
    if draw(st.booleans()):
        log_record.trace_id = draw(st.sampled_from([b"", bytes(15), bytes(16), b"\xff" * 16, GOOD[0].stream.trace_id]))
    if draw(st.booleans()):
        log_record.body.string_value = draw(st.sampled_from(HOSTILE_JSON))
    return log_record


@share(0.2)
@given(broken=st.lists(any_log_record(), max_size=12), chance=st.randoms(use_true_random=False))
def test_mixed_with_any_broken_records_good_streams_give_the_same_bytes_also_after_a_kill(
    broken: Sequence[LogRecord], chance: random.Random
) -> None:
    mixed = [mix(request, broken[number :: len(REQUESTS)], chance) for number, request in enumerate(REQUESTS)]
    at = chance.randrange(len(mixed))
    with tempfile.TemporaryDirectory() as scratch:
        with Rig(Path(scratch) / "before") as rig:
            rig.take(*mixed[:at])
            folder = rig.crash(Path(scratch) / "after")
        with Rig(folder) as rig:
            rig.take(*mixed[at:])
        found = kept(folder)
        assert of_the_good(found.spans) == EXPECTED
        assert not [reason for reason, _ in found.dead_letters if reason.startswith("internal")]


def mix(request: bytes, broken: Sequence[LogRecord], chance: random.Random) -> bytes:
    """The request, with these records at any place in it, under the resource that is there."""
    mixed = ExportLogsServiceRequest.FromString(request)
    for log_record in broken:
        log_records = chance.choice(mixed.resource_logs).scope_logs[0].log_records
        log_records.insert(chance.randrange(len(log_records) + 1), log_record)
    return mixed.SerializeToString()
