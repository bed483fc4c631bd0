"""The page, and the conversations as JSON, over HTTP on loopback. Nothing can be changed by it.

A page of another site can have a browser ask this server, under a name of its own that it lets point to loopback (DNS
rebinding): so a request must name this host. It may then not read the answer: there is no CORS, and policies of the
response say the same.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from ..page.document import document, escaped, policy

logger = logging.getLogger(__name__)

HOST: Final = "127.0.0.1"
IDLE_SECONDS: Final = 30.0
"""For which a connection may say nothing."""
PREFIX: Final = "/conversations/"

List = Callable[[], object]
Find = Callable[[str], object | None]


class Pages:
    """The server (port 0 takes a free one, see ``url``).

    Args:
        summaries: gives the list of conversations, as `page.summary` has it.
        find: gives a conversation by its trace's id, as `page.view` has it; None if there is none.
        endpoint: where agents send, for whoever looks at an empty list.

    Raises:
        OSError: the port cannot be had.
    """

    def __init__(self, port: int, summaries: List, find: Find, endpoint: str) -> None:
        self._server = _Server((HOST, port), _Handler)
        self._server.summaries, self._server.find = summaries, find
        self._server.page = document([], live=True, endpoint=endpoint).encode()
        self._server.hosts = {f"{name}:{self._server.server_port}" for name in (HOST, "localhost")}
        self._thread = threading.Thread(target=self._server.serve_forever, name="pages")
        self.url = f"http://{HOST}:{self._server.server_port}/"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Safe before `start`, and twice."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    summaries: List
    find: Find
    page: bytes
    hosts: set[str]

    def handle_error(self, request: object, client_address: object) -> None:
        """A reader who has gone is no error; anything else is a defect of ours."""
        if not isinstance(sys.exc_info()[1], OSError):
            logger.exception("internal error: a request for the page is not answered", extra={"event": "page_failed"})


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = "realtime-otel"
    sys_version = ""
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        if self.headers.get_all("Host") not in [[host] for host in self.server.hosts]:
            self._answer(HTTPStatus.MISDIRECTED_REQUEST, b"This is another host.\n", "text/plain")
        elif self.path == "/":
            self._answer(HTTPStatus.OK, self.server.page, "text/html")
        elif self.path == PREFIX[:-1]:
            self._answer_json(self.server.summaries())
        elif self.path.startswith(PREFIX):
            self._answer_json(self.server.find(self.path.removeprefix(PREFIX)))
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"There is nothing here.\n", "text/plain")

    do_HEAD = do_GET  # noqa: N815 - the name is the base class's

    def _answer_json(self, data: object | None) -> None:
        if data is None:
            self._answer(HTTPStatus.NOT_FOUND, b"There is no such conversation.\n", "text/plain")
        else:
            self._answer(HTTPStatus.OK, escaped(data).encode(), "application/json")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", f"{kind}; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),  # conversations are nothing for a browser's disk
            ("Content-Security-Policy", f"{policy(live=True)}; frame-ancestors 'none'"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing: a page asks each second."""
