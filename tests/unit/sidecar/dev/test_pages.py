"""The server of the page: to whom it answers, what, and what nobody can make it do."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from realtime_otel_sidecar.dev.pages import Pages

CONVERSATION = {"trace": "ab", "said": "</script><script>"}


@pytest.fixture
def pages() -> Iterator[Pages]:
    served = Pages(
        0, lambda: [CONVERSATION], lambda trace: CONVERSATION if trace == "ab" else None, "http://127.0.0.1:4317"
    )
    served.start()
    yield served
    served.stop()
    served.stop()  # twice is safe


def port(pages: Pages) -> int:
    return int(pages.url.rstrip("/").rpartition(":")[2])


def ask(pages: Pages, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port(pages), timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def test_the_page_and_its_data_are_there(pages: Pages) -> None:
    status, headers, body = ask(pages, "/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"http://127.0.0.1:4317" in body
    status, headers, body = ask(pages, "/conversations")
    assert (status, headers["content-type"], json.loads(body)) == (
        200,
        "application/json; charset=utf-8",
        [CONVERSATION],
    )
    assert json.loads(ask(pages, "/conversations/ab")[2]) == CONVERSATION


@pytest.mark.parametrize("path", ["/conversations/cd", "/conversations/", "/x", "/static/../../../etc/passwd", "/?a"])
def test_there_is_nothing_else(pages: Pages, path: str) -> None:
    assert ask(pages, path)[0] == 404


@pytest.mark.parametrize("path", ["/", "/conversations", "/conversations/ab", "/x"])
def test_every_answer_keeps_to_itself(pages: Pages, path: str) -> None:
    _, headers, body = ask(pages, path)
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert not any(name.startswith("access-control") for name in headers)
    assert b"</script><script>" not in body


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "localhost:1", "127.0.0.1:{port}.evil", ""]
)
def test_a_request_for_another_host_learns_nothing(pages: Pages, host: str) -> None:
    status, _, body = ask(pages, "/conversations/ab", Host=host.format(port=port(pages)))
    assert (status, body) == (421, b"This is another host.\n")


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}"])
def test_it_goes_by_two_names(pages: Pages, host: str) -> None:
    assert ask(pages, "/", Host=host.format(port=port(pages)))[0] == 200


def test_a_request_with_two_hosts_or_none_learns_nothing(pages: Pages) -> None:
    for hosts in (b"", b"Host: 127.0.0.1:%d\r\nHost: evil.example\r\n" % port(pages)):
        with socket.create_connection(("127.0.0.1", port(pages)), timeout=10) as raw:
            raw.sendall(b"GET /conversations HTTP/1.1\r\n" + hosts + b"Connection: close\r\n\r\n")
            assert raw.recv(100).startswith(b"HTTP/1.1 421")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(pages: Pages, method: str) -> None:
    assert ask(pages, "/conversations/ab", method)[0] == 501


def test_a_head_has_no_body(pages: Pages) -> None:
    status, headers, body = ask(pages, "/conversations/ab", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 0


def test_a_reader_who_goes_away_is_no_error_and_a_defect_is_said(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    asked, gone = threading.Event(), threading.Event()

    def large() -> object:
        asked.set()
        gone.wait(10)
        return "x" * 50_000_000

    served = Pages(0, large, lambda _trace: 1 // 0, "")
    served.start()
    try:
        with socket.create_connection(("127.0.0.1", port(served)), timeout=10) as raw:
            raw.sendall(b"GET /conversations HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % port(served))
            assert asked.wait(10)
        gone.set()
        assert ask(served, "/")[0] == 200
        assert caplog.text == ""
        with pytest.raises(http.client.RemoteDisconnected):
            ask(served, "/conversations/ab")
        assert "ZeroDivisionError" in caplog.text
    finally:
        served.stop()
    assert capfd.readouterr().err == ""


def test_it_is_on_loopback_only(pages: Pages) -> None:
    address: Any = pages.url
    assert address.startswith("http://127.0.0.1:")
    own = socket.gethostbyname(socket.gethostname())
    if not own.startswith("127."):
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((own, port(pages)), timeout=5)


def test_a_port_that_is_taken_is_an_error(pages: Pages) -> None:
    with pytest.raises(OSError, match="in use"):
        Pages(port(pages), list, lambda _trace: None, "")
