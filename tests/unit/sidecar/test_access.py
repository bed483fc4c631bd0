"""Who may write to the receiver, over real gRPC: by certificate, by token, and after either was replaced."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from realtime_otel_sidecar.config import Settings
from realtime_otel_sidecar.credentials import of_listen
from realtime_otel_sidecar.otlp import receiver as receiver_module
from realtime_otel_sidecar.otlp.receiver import Receiver
from realtime_otel_sidecar.refusals import Why
from tests.certificates import Authority, Pair, replace
from tests.sidecar import Client, code_of, conversation
from tests.unit.sidecar.rig import eventually
from tests.unit.sidecar.test_receiver import MEBIBYTE, Engine

REQUEST = conversation("one").request()


@contextmanager
def receiving(**files: Path) -> Iterator[Receiver]:
    """A receiver with these settings."""
    named: dict[str, Any] = {name: str(path) for name, path in files.items()}
    settings = Settings(listen="127.0.0.1:0", max_message_mib=1, **named)
    started = Receiver(settings, Engine().submit, of_listen(settings))
    started.start()
    started.serving(True)
    yield started
    started.stop(0)


def answer(
    receiver: Receiver, tls: grpc.ChannelCredentials | None = None, authorization: str = "", request: bytes = REQUEST
) -> grpc.StatusCode:
    """What a request on a new connection is answered with."""
    with Client(receiver.port, tls=tls, authorization=authorization) as client:
        try:
            client.send(request)
        except grpc.RpcError as error:
            return code_of(error)
    return grpc.StatusCode.OK


def health(receiver: Receiver, tls: grpc.ChannelCredentials | None = None) -> int:
    target = f"127.0.0.1:{receiver.port}"
    with grpc.secure_channel(target, tls) if tls else grpc.insecure_channel(target) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        return int(check(HealthCheckRequest(), timeout=10).status)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def own(authority: Authority) -> Pair:
    return authority.issue("own")


# --- Tokens ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return replace(tmp_path / "tokens", "first\nsecond\n")


@pytest.fixture
def guarded(tokens: Path) -> Iterator[Receiver]:
    with receiving(listen_token_file=tokens) as started:
        yield started


@pytest.mark.parametrize("authorization", ["Bearer first", "Bearer second", "bearer first", "BEARER  second"])
def test_a_request_with_one_of_the_tokens_is_taken(authorization: str, guarded: Receiver) -> None:
    assert answer(guarded, authorization=authorization) is grpc.StatusCode.OK


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer third", "Bearer firs", "Bearer first2", "Bearer first second", "first", "Basic first"],
)
def test_a_request_without_one_of_the_tokens_is_refused_for_good(authorization: str, guarded: Receiver) -> None:
    assert answer(guarded, authorization=authorization) is grpc.StatusCode.UNAUTHENTICATED
    assert guarded.refusals[Why.UNAUTHENTICATED] == 1


def test_a_request_that_is_refused_is_not_even_read(guarded: Receiver) -> None:
    large = bytes(2 * MEBIBYTE)
    assert answer(guarded, authorization="Bearer first", request=large) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert answer(guarded, authorization="Bearer third", request=large) is grpc.StatusCode.UNAUTHENTICATED


def test_a_method_that_is_not_there_is_not_told_to_those_without_a_token(guarded: Receiver) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{guarded.port}") as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/elsewhere/Method")
        with pytest.raises(grpc.RpcError) as raised:
            call(b"", timeout=10)
        assert code_of(raised.value) is grpc.StatusCode.UNAUTHENTICATED


def test_a_probe_needs_no_token(guarded: Receiver) -> None:
    assert health(guarded) == HealthCheckResponse.SERVING


def test_a_token_is_replaced_while_requests_come_and_none_of_them_is_refused(guarded: Receiver, tokens: Path) -> None:
    with Client(guarded.port, authorization="Bearer first") as old:
        old.send(REQUEST)
        replace(tokens, "first\nthird\n")  # first here, then at the clients, then without the old one
        old.send(REQUEST)
        with Client(guarded.port, authorization="Bearer third") as new:
            new.send(REQUEST)
        replace(tokens, "third\n")
        with pytest.raises(grpc.RpcError) as raised:
            old.send(REQUEST)
    assert code_of(raised.value) is grpc.StatusCode.UNAUTHENTICATED


def test_a_token_file_that_is_gone_locks_nobody_out(guarded: Receiver, tokens: Path) -> None:
    tokens.unlink()
    assert answer(guarded, authorization="Bearer first") is grpc.StatusCode.OK
    assert answer(guarded, authorization="Bearer third") is grpc.StatusCode.UNAUTHENTICATED


def test_refusals_are_logged_once_in_a_while_with_their_number_and_without_the_token(
    guarded: Receiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        answer(guarded, authorization="Bearer guessed")
    monkeypatch.setattr(time, "monotonic", lambda: 1e9)
    answer(guarded, authorization="Bearer guessed")
    assert [message.partition(", the last from ipv")[0] for message in caplog.messages] == [
        "refused 1 requests without a token of listen_token_file",
        "refused 3 requests without a token of listen_token_file",
    ]
    assert "guessed" not in caplog.text


# --- Certificates ---------------------------------------------------------------------------------------------------


def test_with_a_certificate_the_receiver_speaks_tls_and_nothing_else(authority: Authority, own: Pair) -> None:
    with receiving(listen_certificate_file=own.certificate, listen_key_file=own.key) as receiver:
        assert answer(receiver, authority.client()) is grpc.StatusCode.OK
        assert health(receiver, authority.client()) == HealthCheckResponse.SERVING
        assert answer(receiver) is grpc.StatusCode.UNAVAILABLE


def test_a_client_that_trusts_another_authority_sends_nothing(tmp_path: Path, own: Pair) -> None:
    stranger = Authority(tmp_path / "elsewhere")
    with receiving(listen_certificate_file=own.certificate, listen_key_file=own.key) as receiver:
        assert answer(receiver, stranger.client()) is grpc.StatusCode.UNAVAILABLE, "to be sent again, not lost"


def test_an_expired_certificate_is_believed_by_no_client(authority: Authority) -> None:
    old = authority.issue("old", lasts=timedelta(seconds=-1))
    with receiving(listen_certificate_file=old.certificate, listen_key_file=old.key) as receiver:
        assert answer(receiver, authority.client()) is grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def mutual(authority: Authority, own: Pair) -> Iterator[Receiver]:
    """A receiver that asks for certificates of the authority."""
    with receiving(
        listen_certificate_file=own.certificate, listen_key_file=own.key, listen_client_ca_file=authority.path
    ) as receiver:
        yield receiver


def test_with_a_client_authority_a_client_needs_a_certificate_of_it(
    authority: Authority, mutual: Receiver, tmp_path: Path
) -> None:
    forged = Authority(tmp_path / "elsewhere").issue("forged")
    expired = authority.issue("expired", lasts=timedelta(seconds=-1))
    assert answer(mutual, authority.client(authority.issue("agent"))) is grpc.StatusCode.OK
    for stranger in (None, forged, expired):
        assert answer(mutual, authority.client(stranger)) is grpc.StatusCode.UNAVAILABLE


def test_a_probe_needs_a_certificate_too_as_it_cannot_connect_without(authority: Authority, mutual: Receiver) -> None:
    assert health(mutual, authority.client(authority.issue("probe"))) == HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError):
        health(mutual, authority.client())


def test_a_certificate_and_a_token_are_both_needed_where_both_are_asked_for(
    authority: Authority, own: Pair, tokens: Path
) -> None:
    with receiving(
        listen_certificate_file=own.certificate,
        listen_key_file=own.key,
        listen_client_ca_file=authority.path,
        listen_token_file=tokens,
    ) as receiver:
        agent = authority.client(authority.issue("agent"))
        assert answer(receiver, agent, "Bearer first") is grpc.StatusCode.OK
        assert answer(receiver, agent) is grpc.StatusCode.UNAUTHENTICATED
        assert answer(receiver, authority.client(), "Bearer first") is grpc.StatusCode.UNAVAILABLE


def test_a_certificate_is_replaced_while_connections_are_open(authority: Authority, own: Pair, tmp_path: Path) -> None:
    successor = Authority(tmp_path / "successor")
    with (
        receiving(listen_certificate_file=own.certificate, listen_key_file=own.key) as receiver,
        Client(receiver.port, tls=authority.client()) as old,
    ):
        old.send(REQUEST)
        new = successor.issue("own")
        replace(own.key, new.key.read_bytes())
        assert answer(receiver, authority.client()) is grpc.StatusCode.OK, "half of the new pair changes nothing"
        replace(own.certificate, new.certificate.read_bytes())
        assert answer(receiver, successor.client()) is grpc.StatusCode.OK
        assert answer(receiver, authority.client()) is grpc.StatusCode.UNAVAILABLE
        old.send(REQUEST)


def test_an_authority_that_is_replaced_lets_its_clients_in_no_more_open_connections_included(
    authority: Authority, own: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver_module, "TLS_CONNECTION_SECONDS", 0.2)
    successor = Authority(tmp_path / "successor")
    trusted = replace(tmp_path / "trusted.pem", authority.path.read_bytes())
    with (
        receiving(
            listen_certificate_file=own.certificate, listen_key_file=own.key, listen_client_ca_file=trusted
        ) as receiver,
        Client(receiver.port, tls=authority.client(authority.issue("agent"))) as old,
    ):
        old.send(REQUEST)
        replace(trusted, successor.path.read_bytes())
        assert answer(receiver, authority.client(successor.issue("agent"))) is grpc.StatusCode.OK

        def refused() -> bool:
            try:
                old.send(REQUEST)
            except grpc.RpcError as error:
                return code_of(error) is grpc.StatusCode.UNAVAILABLE
            return False

        eventually(refused)
