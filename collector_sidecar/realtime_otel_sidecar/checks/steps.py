"""What a check has found, and what to do about an answer of gRPC."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from enum import StrEnum

import grpc

from ..config import is_loopback
from ..otlp.connection import TLS_PROBLEM

CALL_SECONDS = 5.0
"""For one connection, and for one answer."""
PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
"""Variables of which gRPC follows the first that is set, to another host."""


class State(StrEnum):
    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Step:
    """What was looked at, what was found, and, unless it is well, what to do."""

    name: str
    state: State
    said: str
    advice: str = ""


def unreachable(host: str, port: int) -> str:
    """Why nobody can be connected to there, as a sentence; empty if somebody listens, or if a proxy is in between."""
    if not is_loopback(host) and any(os.environ.get(name) or os.environ.get(name.upper()) for name in PROXIES):
        return ""
    try:
        with socket.create_connection((host, port), timeout=CALL_SECONDS):
            return ""
    except socket.gaierror as error:
        return f"{host} has no address (DNS: {error.strerror})"
    except ConnectionRefusedError:
        return f"nobody listens at {host}:{port} (connection refused)"
    except TimeoutError:
        return f"{host}:{port} does not answer within {CALL_SECONDS:.0f} s: is a firewall in between?"
    except OSError as error:
        return f"{host}:{port} cannot be connected to: {error.strerror or error}"


def advice(code: str, details: str, service: str, settings: str) -> str:
    """What to do about an answer of gRPC.

    Args:
        code: the name of its status.
        details: what it says besides.
        service: what was expected to listen there.
        settings: where its address and its credentials are set.
    """
    if "http1" in details.lower() or "Expected HTTP/2" in details:
        return f"That port speaks HTTP/1, and is not {service}: OTLP/gRPC has a port of its own (4317). See {settings}."
    if TLS_PROBLEM.search(details):
        return f"Only one end speaks TLS, or one does not trust the other's certificate. See {settings}."
    match code:
        case grpc.StatusCode.UNAUTHENTICATED.name | grpc.StatusCode.PERMISSION_DENIED.name:
            return f"It wants a token, or another one, or another certificate. See {settings}."
        case grpc.StatusCode.UNIMPLEMENTED.name | grpc.StatusCode.NOT_FOUND.name:
            return (
                f"Something else listens there, or without this signal in its pipelines: not {service}. See {settings}."
            )
        case grpc.StatusCode.UNAVAILABLE.name | grpc.StatusCode.DEADLINE_EXCEEDED.name:
            return f"It refuses for now, or is not {service}: its own log says why. See {settings}."
        case _:
            return f"See its own log, and {settings}."
