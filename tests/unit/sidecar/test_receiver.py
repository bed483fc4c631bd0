"""The receiver, over real gRPC: which request gets which answer."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from realtime_otel.contract import SEQ
from realtime_otel_sidecar.config import Settings
from realtime_otel_sidecar.otlp import health as health_module
from realtime_otel_sidecar.otlp import receiver as receiver_module
from realtime_otel_sidecar.otlp.receiver import LOGS_SERVICE, Receiver
from realtime_otel_sidecar.refusals import Unavailable, Why
from realtime_otel_sidecar.waiting import Pending
from tests.conversations import server
from tests.sidecar import DIRECT, Client, code_of, conversation, record, retry_delay
from tests.unit.sidecar.rig import eventually
from tests.unit.sidecar.test_decode import TEXT, log_request_of, put, request_of

MEBIBYTE = 1024 * 1024
REQUEST = conversation("one").request()
SETTINGS = Settings(listen="127.0.0.1:0", max_message_mib=1)


class Engine:
    """Stands for the engine: answers each request at once, as the test says."""

    def __init__(self) -> None:
        self.taken: list[Pending] = []
        self.error: BaseException | None = None
        self.hold = False

    def submit(self, pending: Pending) -> None:
        self.taken.append(pending)
        if self.error is not None and not isinstance(self.error, Unavailable):
            raise self.error
        if self.error is not None:
            pending.done.set_exception(self.error)
        elif not self.hold:
            pending.done.set_result(None)


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def receiver(engine: Engine) -> Iterator[Receiver]:
    started = Receiver(SETTINGS, engine.submit)
    started.start()
    started.serving(True)
    yield started
    started.stop(0)


@pytest.fixture
def client(receiver: Receiver) -> Iterator[Client]:
    with Client(receiver.port) as opened:
        yield opened


def refusal(client: Client, request: bytes, **options: object) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as raised:
        client.send(request, **options)  # type: ignore[arg-type]
    return raised.value


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_a_request_is_taken_plain_and_compressed(compression: grpc.Compression, client: Client, engine: Engine) -> None:
    answer = client.send(REQUEST, compression=compression)
    assert not answer.HasField("partial_success"), "full success leaves it unset"
    assert [pending.data for pending in engine.taken] == [REQUEST]


def counted(receiver: Receiver) -> dict[Why, int]:
    """Refused requests, by why."""
    return {why: receiver.refusals[why] for why in Why if receiver.refusals[why]}


def test_bytes_that_are_no_request_are_an_invalid_argument(receiver: Receiver, client: Client, engine: Engine) -> None:
    for data in (b"\xff\xff", REQUEST[:-5]):
        assert code_of(refusal(client, data)) is grpc.StatusCode.INVALID_ARGUMENT
    assert engine.taken == []
    assert counted(receiver) == {Why.INVALID: 2}


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_a_request_beyond_the_limit_is_refused_for_good_also_when_it_is_small_on_the_wire(
    compression: grpc.Compression, receiver: Receiver, client: Client, engine: Engine
) -> None:
    large = bytes(40 * MEBIBYTE)
    assert len(gzip.compress(large)) < MEBIBYTE
    error = refusal(client, large, compression=compression)
    assert code_of(error) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert retry_delay(error) is None
    assert engine.taken == []
    eventually(lambda: counted(receiver) == {Why.NO_MESSAGE: 1})


def receiving(engine: Engine, **settings: int) -> Receiver:
    """A receiver with other bounds."""
    started = Receiver(Settings(listen="127.0.0.1:0", **settings), engine.submit)  # type: ignore[arg-type]
    started.start()
    return started


def test_a_request_with_too_many_records_is_refused_for_good_and_says_which_setting_would_do(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    groups = 2  # the resource and the scope
    records = len(conversation("one").records)
    receiver = receiving(engine, max_records_per_request=records + groups)
    with Client(receiver.port) as client:
        client.send(REQUEST)
        for _ in range(3):
            error = refusal(client, REQUEST + b"\x0a\x00")
            assert code_of(error) is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert retry_delay(error) is None
            assert f"more than {records + groups} log records in one request (max_records_per_request)" in str(error)
        client.send(REQUEST)
    receiver.stop(0)
    assert len(engine.taken) == 2
    assert counted(receiver) == {Why.TOO_MANY_RECORDS: 3}
    assert [each.levelname for each in caplog.records if "LOST" in each.getMessage()] == ["ERROR"], "once a minute"


def test_beyond_the_room_for_requests_that_wait_a_request_is_to_be_sent_again(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    request = record([server("rate_limits.updated")] * 1000).request()
    assert MEBIBYTE / 3 < len(request) < MEBIBYTE / 2
    receiver = receiving(engine, max_message_mib=1, max_waiting_mib=1)
    engine.hold = True
    with Client(receiver.port) as client:
        answers = [client.send_later(request) for _ in range(2)]
        eventually(lambda: len(engine.taken) == 2)
        for _ in range(3):
            error = refusal(client, request)
            assert code_of(error) is grpc.StatusCode.UNAVAILABLE
            assert retry_delay(error) is not None
        assert len(engine.taken) == 2, "it was not even decoded"
        engine.hold = False
        for pending in engine.taken:
            pending.done.set_result(None)
        for answer in answers:
            answer.result()
        for _ in range(5):
            client.send(request)
    receiver.stop(0)
    assert counted(receiver) == {Why.NO_ROOM: 3}
    assert caplog.text.count("no room for more requests that wait for a commit (max_waiting_mib)") == 1


def test_a_request_that_has_waited_too_long_takes_its_room_until_it_is_committed(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver_module, "COMMIT_SECONDS", 0.05)
    request = record([server("rate_limits.updated")] * 2000).request()
    receiver = receiving(engine, max_message_mib=1, max_waiting_mib=1)
    engine.hold = True
    with Client(receiver.port) as client:
        assert "takes too long" in str(refusal(client, request))
        assert "no room" in str(refusal(client, request))
        engine.hold = False
        engine.taken[0].done.set_result(None)
        client.send(request)
    receiver.stop(0)
    assert counted(receiver) == {Why.COMMIT_TIMEOUT: 1, Why.NO_ROOM: 1}


def test_clients_that_begin_a_message_and_give_up_keep_nobody_from_being_received(
    receiver: Receiver, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    path = f"/{LOGS_SERVICE}/Export"
    given_up = threading.Event()

    def nothing() -> Iterator[bytes]:
        given_up.wait(10)
        yield from ()

    with grpc.insecure_channel(f"127.0.0.1:{receiver.port}", options=DIRECT) as channel:
        export: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(path)
        calls = [export.future(nothing()) for _ in range(2 * receiver_module.RECEIVED)]
        eventually(lambda: receiver._turns.taken == receiver_module.RECEIVED)
        for call in calls:
            call.cancel()
        client.send(REQUEST)
        given_up.set()
    eventually(lambda: receiver._turns.taken == 0)
    assert "could not be taken in" not in caplog.text


def test_calls_whose_messages_do_not_come_keep_nobody_from_being_received(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver_module, "RECEIVE_SECONDS", 0.5)
    receiver = receiving(engine)
    over = threading.Event()

    def nothing() -> Iterator[bytes]:
        over.wait(30)
        yield from ()

    with grpc.insecure_channel(f"127.0.0.1:{receiver.port}", options=DIRECT) as silent, Client(receiver.port) as client:
        export: grpc.StreamUnaryMultiCallable[bytes, bytes] = silent.stream_unary(f"/{LOGS_SERVICE}/Export")
        calls = [export.future(nothing()) for _ in range(receiver_module.RECEIVED)]
        eventually(lambda: receiver._turns.taken == receiver_module.RECEIVED)
        time.sleep(0.6)
        assert not any(call.done() for call in calls), "while nobody waits, they may take their time"
        for _ in range(2):
            client.send(REQUEST)
        assert {call.code() for call in calls} == {grpc.StatusCode.CANCELLED}
        over.set()
    receiver.stop(0)
    assert counted(receiver) == {Why.TOO_MANY_LARGE: receiver_module.RECEIVED}


def test_a_call_whose_turn_to_be_received_does_not_come_is_to_be_sent_again(
    receiver: Receiver, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver_module, "RECEIVE_SECONDS", 0.05)
    for _ in range(receiver_module.RECEIVED):
        receiver._turns._free.acquire()
    error = refusal(client, REQUEST)
    assert code_of(error) is grpc.StatusCode.UNAVAILABLE
    assert retry_delay(error) is not None
    for _ in range(receiver_module.RECEIVED):
        receiver._turns._free.release()
    client.send(REQUEST)
    assert counted(receiver) == {Why.TOO_MANY_LARGE: 1}


@pytest.mark.parametrize("failure", ["no request", "a defect", "other services"])
def test_a_request_that_is_not_handed_on_leaves_its_room(failure: str, engine: Engine) -> None:
    request = record([server("rate_limits.updated")] * 2000).request()
    receiver = receiving(engine, max_message_mib=1, max_waiting_mib=1)
    with Client(receiver.port) as client:
        for _ in range(3):
            if failure == "no request":
                assert code_of(refusal(client, request[:-1])) is grpc.StatusCode.INVALID_ARGUMENT
            elif failure == "a defect":
                engine.error = ValueError("a defect")
                assert "internal error" in str(refusal(client, request))
            else:
                client.send(log_request_of(put("openai.realtime.stream.id", None)) * 2000)
        engine.error = None
        client.send(request)
    receiver.stop(0)


def test_a_request_at_the_limit_is_taken(client: Client, engine: Engine) -> None:
    request = record([server("rate_limits.updated")] * 2400).request()
    assert 0.9 * MEBIBYTE < len(request) <= MEBIBYTE
    client.send(request)
    assert len(engine.taken) == 1


def test_what_the_engine_cannot_take_now_is_to_be_sent_again_after_a_while(
    receiver: Receiver, client: Client, engine: Engine
) -> None:
    engine.error = Unavailable("the data directory cannot be written", 2.5, Why.DISK_UNWRITABLE)
    error = refusal(client, REQUEST)
    assert code_of(error) is grpc.StatusCode.UNAVAILABLE
    assert retry_delay(error) == 2.5
    assert counted(receiver) == {Why.DISK_UNWRITABLE: 1}


def test_a_commit_that_takes_too_long_is_to_be_sent_again(
    client: Client, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver_module, "COMMIT_SECONDS", 0.05)
    engine.hold = True
    error = refusal(client, REQUEST)
    assert code_of(error) is grpc.StatusCode.UNAVAILABLE
    assert retry_delay(error) is not None


def test_a_defect_never_makes_a_collector_drop_the_batch(receiver: Receiver, client: Client, engine: Engine) -> None:
    engine.error = ValueError("a defect")
    error = refusal(client, REQUEST)
    assert code_of(error) is grpc.StatusCode.UNAVAILABLE, "not UNKNOWN, on which it would be dropped"
    assert retry_delay(error) is not None
    assert counted(receiver) == {Why.INTERNAL_ERROR: 1}


def test_who_breaks_the_contract_with_each_record_does_not_fill_the_log(
    receiver: Receiver, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    broken = request_of(put(SEQ, TEXT))
    for _ in range(5):
        client.send(broken)
    receiver._quiet_on_broken._until = 0.0  # as after a minute
    client.send(broken + broken)
    said = [each for each in caplog.records if "break the contract" in each.getMessage()]
    assert [vars(each)["count"] for each in said] == [1, 6]


def test_only_the_records_that_break_the_contract_are_rejected(client: Client, engine: Engine) -> None:
    broken = request_of(put(SEQ, TEXT))
    answer = client.send(REQUEST + broken + broken).partial_success
    assert answer.rejected_log_records == 2
    assert SEQ in answer.error_message
    (pending,) = engine.taken
    assert len(pending.broken) == 2
    assert len(pending.records) == len(conversation("one").records)


def test_other_services_logs_are_answered_with_ok_and_go_nowhere(client: Client, engine: Engine) -> None:
    other = log_request_of(put("openai.realtime.stream.id", None))
    for request in (other, b""):
        assert not client.send(request).HasField("partial_success")
    assert engine.taken == []


def test_many_requests_wait_for_their_commits_at_the_same_time(client: Client, engine: Engine) -> None:
    engine.hold = True
    answers = [client.send_later(REQUEST) for _ in range(40)]
    while len(engine.taken) < 40:
        assert not any(answer.done() for answer in answers)
    for pending in engine.taken:
        pending.done.set_result(None)
    for answer in answers:
        answer.result()


def test_a_stop_lets_those_that_wait_have_their_answer(receiver: Receiver, client: Client, engine: Engine) -> None:
    engine.hold = True
    answer = client.send_later(REQUEST)
    while not engine.taken:
        assert not answer.done()
    stopping = threading.Thread(target=receiver.stop, args=(10.0,))
    stopping.start()
    engine.taken[0].done.set_result(None)
    answer.result()
    stopping.join()
    assert code_of(refusal(client, REQUEST)) is grpc.StatusCode.UNAVAILABLE


def health(port: int, service: str = "") -> int:
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=DIRECT) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        return int(check(HealthCheckRequest(service=service), timeout=10).status)


def test_its_health_can_be_asked_while_all_threads_wait_for_a_disk(
    receiver: Receiver, client: Client, engine: Engine
) -> None:
    engine.hold = True
    answers = [client.send_later(REQUEST) for _ in range(receiver_module.HANDLERS + 5)]
    eventually(lambda: len(engine.taken) == receiver_module.HANDLERS)
    assert health(receiver.port) == HealthCheckResponse.SERVING
    engine.hold = False
    for pending in engine.taken:
        pending.done.set_result(None)
    for answer in answers:
        answer.result()


def test_whoever_asks_for_its_health_and_says_nothing_keeps_nobody_from_asking(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver._health._turns, "_seconds", 0.2)
    over = threading.Event()

    def nothing() -> Iterator[bytes]:
        over.wait(30)
        yield from ()

    with grpc.insecure_channel(f"127.0.0.1:{receiver.port}", options=DIRECT) as silent:
        check: grpc.StreamUnaryMultiCallable[bytes, bytes] = silent.stream_unary("/grpc.health.v1.Health/Check")
        calls = [check.future(nothing()) for _ in range(2 * health_module.THREADS)]
        eventually(lambda: receiver._health._turns.taken == health_module.RECEIVED)
        assert health(receiver.port) == HealthCheckResponse.SERVING
        over.set()
        for call in calls:
            with pytest.raises(grpc.RpcError):
                call.result()


@pytest.mark.parametrize("service", ["", LOGS_SERVICE])
def test_the_health_service_says_whether_requests_are_taken(service: str, receiver: Receiver) -> None:
    assert health(receiver.port, service) == HealthCheckResponse.SERVING
    receiver.serving(False)
    assert health(receiver.port, service) == HealthCheckResponse.NOT_SERVING
    receiver.serving(True)
    assert health(receiver.port, service) == HealthCheckResponse.SERVING


def test_the_health_of_a_service_that_is_not_here_is_not_found(receiver: Receiver) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        health(receiver.port, "elsewhere")
    assert code_of(raised.value) is grpc.StatusCode.NOT_FOUND


def test_a_port_that_is_taken_is_an_error(receiver: Receiver, engine: Engine) -> None:
    with pytest.raises(RuntimeError, match=str(receiver.port)):
        Receiver(Settings(listen=f"127.0.0.1:{receiver.port}"), engine.submit)
