"""The console command ``realtime-otel``. Exit status: 0 done, 1 done with problems or failed, 2 used wrongly."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

HEALTH_SETTINGS = ("endpoint_ca_file", "endpoint_certificate_file", "endpoint_key_file", "endpoint_authority")
"""To the command `health`, the sidecar is the endpoint. Their environment variables are about the sidecar's own."""
MISSING_EXTRA = "realtime-otel: this command needs the sidecar: pip install 'realtime-otel[sidecar]' ({})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; its modules are imported only then, for the emitter alone does not install them."""
    try:
        parser = _parser()
    except ModuleNotFoundError as error:
        print(MISSING_EXTRA.format(error), file=sys.stderr)
        return 1
    flags = parser.parse_args(arguments)
    status: int = flags.run(flags)
    return status


def _parser() -> argparse.ArgumentParser:
    from .config import add_flag, add_flags, named

    parser = argparse.ArgumentParser(prog="realtime-otel", description="Traces of OpenAI Realtime conversations.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    sidecar = commands.add_parser("sidecar", help="stitch records into spans, next to a Collector")
    add_flags(sidecar)
    sidecar.set_defaults(run=_sidecar)

    replay = commands.add_parser("replay", help="show the trace of a recorded event stream")
    replay.add_argument("file", type=Path, metavar="FILE.jsonl", help='lines of {"t": seconds, "dir": …, "event": {…}}')
    replay.add_argument("--otlp-json", metavar="OUT", help="write the spans as OTLP/JSON; - is standard output")
    replay.add_argument("--content", action="store_true", help="show what people and models say, too")
    replay.set_defaults(run=_replay)

    health = commands.add_parser("health", help="ask a sidecar whether it is serving")
    where = "host:port of the sidecar, or https://host:port for TLS (default: %(default)s)"
    health.add_argument("--endpoint", default="127.0.0.1:4317", help=where)
    for name in HEALTH_SETTINGS:
        add_flag(health, named(name), "none")
    health.set_defaults(run=_health)
    return parser


def _sidecar(flags: argparse.Namespace) -> int:
    from .config import SettingsError, settings_from
    from .service import Sidecar
    from .store.folder import StoreError

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = threading.Event()
    _stop_on_signals(stop)
    try:
        sidecar = Sidecar(settings_from(flags))
    except (SettingsError, StoreError, RuntimeError) as error:
        return _fail(str(error))
    with sidecar:
        return 0 if sidecar.watch(stop) else 1


def _stop_on_signals(stop: threading.Event) -> None:
    """The first signal asks for a clean stop; a second one ends the process at once."""

    def ask(_number: int, _frame: object) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)
        stop.set()

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, ask)


def _replay(flags: argparse.Namespace) -> int:
    from .otlp.encode import encode_spans, to_otlp_json
    from .replay import replay
    from .tree import console, render

    try:
        result = replay(flags.file, content=flags.content)
    except OSError as error:
        return _fail(f"{flags.file} cannot be read: {error.strerror}")
    request = encode_spans(result.spans)
    if flags.otlp_json == "-":
        print(to_otlp_json(request))
    else:
        console().print(render([request]))
        if flags.otlp_json:
            Path(flags.otlp_json).write_text(to_otlp_json(request) + "\n", encoding="utf-8")
    for problem in result.problems:
        print(f"{flags.file}: {problem}", file=sys.stderr)
    return 1 if result.problems else 0


def _health(flags: argparse.Namespace) -> int:
    import grpc
    from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

    from .config import SettingsError, settings_from
    from .credentials import of_endpoint
    from .otlp.connection import Connection

    try:
        settings = settings_from(flags, environment={})
        connection = Connection(
            settings.endpoint, "/grpc.health.v1.Health/Check", of_endpoint(settings), settings.endpoint_authority
        )
        status = HealthCheckResponse.FromString(connection.call(HealthCheckRequest().SerializeToString(), 3)).status
        connection.close()
    except SettingsError as error:
        return _fail(str(error))
    except grpc.RpcError as error:
        return _fail(f"{flags.endpoint} does not answer: {error.details()}")
    print(HealthCheckResponse.ServingStatus.Name(status))
    return 0 if status == HealthCheckResponse.SERVING else 1


def _fail(text: str) -> int:
    print(f"realtime-otel: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
