"""Who may write to the receiver: its certificate, its clients' certificates, and their tokens."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

import grpc

from ..credentials import Fresh, Pem, Tokens
from ..logs import Quiet
from ..refusals import Refusals, Why

logger = logging.getLogger(__name__)

OPEN: Final = "/grpc.health.v1.Health/"
"""Probes carry no token, and learn nothing but whether requests are taken."""

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class TokenGate(grpc.ServerInterceptor):
    """Answers UNAUTHENTICATED to a request without one of the tokens, before its message is read."""

    def __init__(self, tokens: Fresh[Tokens], refusals: Refusals) -> None:
        self._tokens = tokens
        self._refusals = refusals
        # As a stream: a single message would be received and decompressed, of any size that is allowed, to be refused.
        self._refusal: Handler = grpc.stream_unary_rpc_method_handler(self._refuse)
        self._quiet = Quiet()

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Handler | None], call: grpc.HandlerCallDetails
    ) -> Handler | None:
        authorization = dict(call.invocation_metadata or ()).get("authorization", "")
        if call.method.startswith(OPEN) or self._knows(authorization):
            return continuation(call)
        return self._refusal

    def _knows(self, authorization: str | bytes) -> bool:
        text = authorization.encode() if isinstance(authorization, str) else authorization
        scheme, _, token = text.partition(b" ")
        # How long each comparison takes says nothing about how much of it is right, nor about which token it is.
        right = [hmac.compare_digest(token.strip(), known) for known in self._tokens.get()]
        return scheme.lower() == b"bearer" and any(right)

    def _refuse(self, _requests: Iterable[bytes], context: grpc.ServicerContext) -> Any:
        self._refusals.add(Why.UNAUTHENTICATED)
        self._log_refusal(context.peer())
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "the request carries no token that is known here")

    def _log_refusal(self, peer: str) -> None:
        if count := self._quiet.add():
            about = {"event": "requests_refused", "reason": str(Why.UNAUTHENTICATED), "count": count, "peer": peer}
            said = "refused %d requests without a token of listen_token_file, the last from %s"
            logger.warning(said, count, peer, extra=about)


def server_credentials(tls: Fresh[Pem]) -> grpc.ServerCredentials:
    """Certificates that are read for each new connection. With authorities, a client has to have one of theirs."""
    shown = tls.get()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        """None says that nothing has changed (grpcio's documentation; its types do not know)."""
        nonlocal shown
        pem = tls.get()
        if pem is shown:
            return None
        shown = pem
        return _configuration(pem)

    required = bool(shown.authorities)
    return grpc.dynamic_ssl_server_credentials(_configuration(shown), changed, required)  # type: ignore[arg-type]


def _configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pem.key, pem.certificate)], pem.authorities or None)
