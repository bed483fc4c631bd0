"""A channel to an endpoint, with what the endpoint asks for: TLS, a certificate, a token."""

from __future__ import annotations

import re
import threading

import grpc

from ..config import endpoint_url, is_loopback
from ..credentials import Credentials, Pem

LONGEST_RECONNECT_SECONDS = 5.0
"""By default, gRPC would wait up to two minutes before it looks whether a server that was away is back."""
HINTS = {
    grpc.StatusCode.UNAUTHENTICATED: "see endpoint_token_file",
    grpc.StatusCode.PERMISSION_DENIED: "see endpoint_token_file and endpoint_certificate_file",
}
TLS_HINT = "see endpoint, endpoint_ca_file, endpoint_certificate_file and endpoint_authority"
TLS_PROBLEM = re.compile("handshake failed|Verification Check failed|failed to connect.*Socket closed")
"""What gRPC says when it cannot connect because of a certificate, or because only one end speaks TLS."""


def open_channel(endpoint: str, pem: Pem, authority: str = "") -> grpc.Channel:
    """A channel, with TLS to an https endpoint; ``authority`` replaces the endpoint's host name."""
    url = endpoint_url(endpoint)
    options: list[tuple[str, str | int]] = [
        ("grpc.max_reconnect_backoff_ms", round(LONGEST_RECONNECT_SECONDS * 1000)),
    ]
    if is_loopback(url.hostname or ""):
        options.append(("grpc.enable_http_proxy", 0))  # what is meant for this machine must not leave it
    if authority:
        options += [("grpc.default_authority", authority), ("grpc.ssl_target_name_override", authority)]
    if url.scheme != "https":
        return grpc.insecure_channel(url.netloc, options, compression=grpc.Compression.Gzip)
    tls = grpc.ssl_channel_credentials(pem.authorities or None, pem.key or None, pem.certificate or None)
    return grpc.secure_channel(url.netloc, tls, options, compression=grpc.Compression.Gzip)


class Connection:
    """Calls of one method, each with the token of that moment, over a channel with the certificates of that moment."""

    def __init__(self, endpoint: str, method: str, credentials: Credentials, authority: str = "") -> None:
        self._endpoint = endpoint
        self._method = method
        self._credentials = credentials
        self._authority = authority
        self._lock = threading.Lock()
        self._closed = False
        self._open(credentials.tls.get() if credentials.tls else Pem())

    def call(self, request: bytes, timeout: float) -> bytes:
        """Send, and wait for the answer, at most ``timeout`` seconds.

        Raises:
            grpc.RpcError: the answer is another than OK, or there is none.
            ValueError: the connection is closed.
        """
        with self._lock:
            tls = self._credentials.tls
            if tls is not None and (pem := tls.get()) is not self._pem and not self._closed:
                self._channel.close()
                self._open(pem)
            call = self._call
        return call(request, timeout=timeout, metadata=self._metadata())

    def close(self) -> None:
        """Also ends a call that is under way, from another thread."""
        with self._lock:
            self._closed = True
            self._channel.close()

    def hide(self, text: str | None) -> str:
        """What the endpoint says, without our token: there are servers that repeat the one that they refuse."""
        for token in self._tokens():
            text = (text or "").replace(token, "[token]")
        return text or ""

    def _open(self, pem: Pem) -> None:
        self._pem = pem
        self._channel = open_channel(self._endpoint, pem, self._authority)
        self._call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(self._method)

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return tuple(("authorization", f"Bearer {token}") for token in self._tokens())

    def _tokens(self) -> tuple[str, ...]:
        """The token to send, if there is one."""
        tokens = self._credentials.tokens
        return (tokens.get()[0].decode("ascii"),) if tokens is not None else ()


def hint(error: grpc.Call) -> str:
    """Which setting it may be about."""
    found = HINTS.get(error.code(), "")
    if TLS_PROBLEM.search(error.details() or ""):
        found = TLS_HINT
    return f" ({found})" if found else ""
