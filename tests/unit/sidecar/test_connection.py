"""What the sender shows and sends, over real gRPC: certificates, a token, and what is said when they are not good."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from realtime_otel_sidecar.config import Settings
from realtime_otel_sidecar.credentials import of_endpoint
from realtime_otel_sidecar.otlp import connection
from realtime_otel_sidecar.otlp import sender as sender_module
from realtime_otel_sidecar.otlp.connection import Connection
from realtime_otel_sidecar.otlp.sender import METHOD
from realtime_otel_sidecar.store.database import Database
from tests.certificates import Authority, Pair, replace
from tests.sidecar import Backend, accepted, only_with, refused
from tests.unit.sidecar.rig import eventually
from tests.unit.sidecar.sending import Running, row, waiting

TLS_HINT = "(see endpoint, endpoint_ca_file, endpoint_certificate_file and endpoint_authority)"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(sender_module, "LONGEST_WAIT", 0.1)
    monkeypatch.setattr(connection, "LONGEST_RECONNECT_SECONDS", 0.1)
    caplog.set_level(logging.INFO)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def backend(authority: Authority) -> Iterator[Backend]:
    """Speaks TLS."""
    with Backend(authority.server(authority.issue("collector"))) as opened:
        yield opened


@pytest.fixture
def mutual(authority: Authority) -> Iterator[Backend]:
    """Speaks TLS, and asks for certificates."""
    tls = authority.server(authority.issue("collector"), asks_for_certificates=True)
    with Backend(tls) as opened:
        yield opened


@contextmanager
def sending(folder: Path, backend: Backend, **settings: object) -> Iterator[list[int]]:
    """A sender with one row to send; gives the list of what it has acknowledged."""
    values = {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
    named = Settings(**{"endpoint": backend.endpoint} | values)  # type: ignore[arg-type]
    database = Database(folder / "data")
    database.commit(waiting(row(1)))
    running = Running(database, named.endpoint, of_endpoint(named), named.endpoint_authority)
    running.sender.start()
    try:
        yield running.acknowledged
    finally:
        running.sender.stop(0)
        database.close()


def pair_of(own: Pair) -> dict[str, Path]:
    return {"endpoint_certificate_file": own.certificate, "endpoint_key_file": own.key}


# --- TLS ------------------------------------------------------------------------------------------------------------


def test_spans_go_to_an_endpoint_whose_authority_is_trusted(
    tmp_path: Path, authority: Authority, backend: Backend
) -> None:
    with sending(tmp_path, backend, endpoint_ca_file=authority.path) as acknowledged:
        eventually(lambda: acknowledged == [1])


@pytest.mark.parametrize("problem", ["another authority", "no authority but the public ones", "expired", "other name"])
def test_spans_wait_for_an_endpoint_whose_certificate_is_not_good_and_the_log_says_where_to_look(
    problem: str, tmp_path: Path, authority: Authority, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    settings: dict[str, object] = {"endpoint_ca_file": authority.path}
    if problem == "another authority":
        settings["endpoint_ca_file"] = Authority(tmp_path / "elsewhere").path
    elif problem == "no authority but the public ones":
        settings = {}
    elif problem == "expired":
        backend.close()
        backend.tls = authority.server(authority.issue("collector", lasts=timedelta(seconds=-1)))
        backend.open()
    else:
        settings["endpoint_authority"] = "elsewhere.example"
    with sending(tmp_path, backend, **settings) as acknowledged:
        eventually(lambda: "they wait in the outbox: UNAVAILABLE" in caplog.text)
    assert TLS_HINT in caplog.text
    assert acknowledged == []
    assert backend.seen == []


def test_an_endpoint_may_have_another_name_than_its_address(tmp_path: Path, authority: Authority) -> None:
    with Backend(authority.server(authority.issue("collector", host="collector.example"))) as backend:
        named = {"endpoint_ca_file": authority.path, "endpoint_authority": "collector.example"}
        with sending(tmp_path, backend, **named) as acknowledged:
            eventually(lambda: acknowledged == [1])


def test_an_endpoint_that_asks_for_a_certificate_gets_it(tmp_path: Path, authority: Authority, mutual: Backend) -> None:
    own = pair_of(authority.issue("own"))
    with sending(tmp_path, mutual, endpoint_ca_file=authority.path, **own) as acknowledged:
        eventually(lambda: acknowledged == [1])


def test_spans_wait_for_an_endpoint_that_asks_for_a_certificate_which_is_not_there(
    tmp_path: Path, authority: Authority, mutual: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    with sending(tmp_path, mutual, endpoint_ca_file=authority.path) as acknowledged:
        eventually(lambda: "they wait in the outbox: UNAVAILABLE" in caplog.text)
    assert TLS_HINT in caplog.text
    assert acknowledged == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_spans_wait_while_only_one_end_speaks_tls_and_the_log_says_where_to_look(
    scheme: str, tmp_path: Path, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    with Backend() as plain:
        other = backend if scheme == "http" else plain
        endpoint = f"{scheme}:{other.endpoint.partition(':')[2]}"
        with sending(tmp_path, other, endpoint=endpoint) as acknowledged:
            eventually(lambda: TLS_HINT in caplog.text)
    assert acknowledged == []


def test_why_spans_wait_is_said_again_when_it_is_another_reason(
    tmp_path: Path, authority: Authority, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.close()
    with sending(tmp_path, backend, endpoint_ca_file=authority.path) as acknowledged:
        eventually(lambda: "they wait in the outbox: UNAVAILABLE" in caplog.text)
        assert TLS_HINT not in caplog.text
        backend.tls = authority.server(authority.issue("collector", lasts=timedelta(seconds=-1)))
        backend.open()
        eventually(lambda: TLS_HINT in caplog.text)
    assert acknowledged == []


def test_certificates_that_are_replaced_are_used_without_a_restart(
    tmp_path: Path, authority: Authority, mutual: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    expired = pair_of(authority.issue("own", lasts=timedelta(seconds=-1)))
    with sending(tmp_path, mutual, endpoint_ca_file=authority.path, **expired) as acknowledged:
        eventually(lambda: "they wait in the outbox" in caplog.text)
        authority.issue("own")
        eventually(lambda: acknowledged == [1])
    assert "new certificates of endpoint are in use" in caplog.text


def test_a_server_whose_authority_was_replaced_is_found_again_without_a_restart(
    tmp_path: Path, authority: Authority, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    successor = Authority(tmp_path / "successor")
    backend.close()
    backend.tls = successor.server(successor.issue("collector"))
    backend.open()
    with sending(tmp_path, backend, endpoint_ca_file=authority.path) as acknowledged:
        eventually(lambda: "they wait in the outbox" in caplog.text)
        replace(authority.path, successor.path.read_bytes())
        eventually(lambda: acknowledged == [1])


# --- The token ------------------------------------------------------------------------------------------------------


def test_every_request_carries_the_first_token_of_the_file(
    tmp_path: Path, authority: Authority, backend: Backend
) -> None:
    backend.answer = only_with("first")
    files = {"endpoint_ca_file": authority.path, "endpoint_token_file": replace(tmp_path / "token", "first\nsecond\n")}
    with sending(tmp_path, backend, **files) as acknowledged:
        eventually(lambda: acknowledged == [1])


def test_a_token_goes_in_clear_to_this_machine(tmp_path: Path) -> None:
    with Backend() as backend:
        backend.answer = only_with("first")
        with sending(tmp_path, backend, endpoint_token_file=replace(tmp_path / "token", "first")) as acknowledged:
            eventually(lambda: acknowledged == [1])


def test_nothing_that_is_meant_for_this_machine_goes_through_a_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("no_grpc_proxy", raising=False)
    with Backend() as backend, sending(tmp_path, backend) as acknowledged:
        eventually(lambda: acknowledged == [1])


@pytest.mark.parametrize("content", ["wrong", None])
def test_spans_wait_while_the_token_is_not_good_and_the_log_says_where_to_look_and_not_what_it_is(
    content: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files: dict[str, object] = {"endpoint_token_file": replace(tmp_path / "token", content)} if content else {}
    with Backend() as backend:
        backend.answer = only_with("right")
        with sending(tmp_path, backend, **files) as acknowledged:
            eventually(lambda: len(backend.seen) > 3)
            assert acknowledged == []
    (said,) = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.ERROR]
    assert "they wait in the outbox: UNAUTHENTICATED" in said
    assert said.endswith("(see endpoint_token_file)")
    assert "wrong" not in caplog.text
    assert ("[token]" in said) is (content is not None)


def test_a_token_that_is_replaced_is_used_without_a_restart(tmp_path: Path) -> None:
    token = replace(tmp_path / "token", "wrong")
    with Backend() as backend:
        backend.answer = only_with("right")
        with sending(tmp_path, backend, endpoint_token_file=token) as acknowledged:
            eventually(lambda: len(backend.seen) > 1)
            replace(token, "right")
            eventually(lambda: acknowledged == [1])


def test_who_may_not_write_there_is_told_which_settings_it_is_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Backend() as backend:
        backend.answers = [refused(grpc.StatusCode.PERMISSION_DENIED)]
        backend.answer = accepted
        with sending(tmp_path, backend) as acknowledged:
            eventually(lambda: acknowledged == [1])
    assert "PERMISSION_DENIED" in caplog.text
    assert "(see endpoint_token_file and endpoint_certificate_file)" in caplog.text


def test_a_connection_that_is_closed_stays_closed_when_its_certificates_change(
    authority: Authority, backend: Backend
) -> None:
    own = authority.issue("own")
    files = {name: str(path) for name, path in pair_of(own).items()}
    settings = Settings(endpoint=backend.endpoint, endpoint_ca_file=str(authority.path), **files)  # type: ignore[arg-type]
    opened = Connection(settings.endpoint, METHOD, of_endpoint(settings))
    opened.close()
    authority.issue("own")
    with pytest.raises(ValueError, match="closed"):
        opened.call(b"", 1)
