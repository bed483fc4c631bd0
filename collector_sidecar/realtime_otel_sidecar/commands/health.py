"""``realtime-otel health``: ask a sidecar whether it is serving."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..config import SettingsError, settings_from
from . import fail
from .flags import add_flag, help_all

if TYPE_CHECKING:
    from . import Commands

SETTINGS = ("endpoint_ca_file", "endpoint_certificate_file", "endpoint_key_file", "endpoint_authority")
"""To this command, the sidecar is the endpoint. Their environment variables are about the sidecar's own."""


def add(commands: Commands) -> None:
    health = commands.add_parser("health", help="ask a sidecar whether it is serving")
    help_all(health)
    where = "host:port of the sidecar, or https://host:port for TLS (default: %(default)s)"
    health.add_argument("--endpoint", metavar="ENDPOINT", default="127.0.0.1:4317", help=where)
    for name in SETTINGS:
        add_flag(health, name, "none")
    health.set_defaults(run=_run)


def _run(flags: argparse.Namespace) -> int:
    import grpc
    from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

    from ..credentials import of_endpoint
    from ..otlp.connection import Connection

    try:
        settings = settings_from(flags, environment={})
        connection = Connection(
            settings.endpoint, "/grpc.health.v1.Health/Check", of_endpoint(settings), settings.endpoint_authority
        )
        status = HealthCheckResponse.FromString(connection.call(HealthCheckRequest().SerializeToString(), 3)).status
        connection.close()
    except SettingsError as error:
        return fail(str(error))
    except grpc.RpcError as error:
        return fail(f"{flags.endpoint} does not answer: {error.details()}")
    print(HealthCheckResponse.ServingStatus.Name(status))
    return 0 if status == HealthCheckResponse.SERVING else 1
