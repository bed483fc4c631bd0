"""``realtime-otel replay``: the traces of what was recorded, without any server."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ..config import SettingsError, settings_from
from . import fail

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from rich.console import Console

    from . import Commands

LONG_BYTES = 4 * 1024 * 1024
"""A file of this size takes a second or more, and says how far it is."""

DESCRIPTION = """\
Show the trace of each conversation in FILE: a recorded event stream (lines of {"t": seconds, "dir": …, "event": {…}}),
or OTLP/JSON as the Collector's file exporter writes it. Log records of an emitter are stitched, spans are shown as they
are.
"""
STATUS = """\
Exit status: 0 all of it was used; 1 a line could not be used, or something could not be read, written or sent;
2 used wrongly.
"""


def add(commands: Commands) -> None:
    replay = commands.add_parser(
        "replay", help="show the trace of something recorded", description=DESCRIPTION, epilog=STATUS
    )
    replay.add_argument("file", type=Path, metavar="FILE")
    replay.add_argument("--html", metavar="OUT", help="write a page that can be mailed; - is standard output")
    replay.add_argument("--otlp-json", metavar="OUT", help="write the spans as OTLP/JSON; - is standard output")
    replay.add_argument(
        "--to",
        metavar="ENDPOINT",
        help="send the spans to this OTLP/gRPC endpoint (http://host:port, or https:// with "
        "REALTIME_OTEL_ENDPOINT_CA_FILE, …_TOKEN_FILE and the like, as for the sidecar)",
    )
    replay.add_argument(
        "--new-trace-ids",
        metavar="NAME",
        help="put what is stitched into traces of their own, which link to those that it was in; the same NAME gives "
        "the same ids",
    )
    replay.add_argument("--content", action="store_true", help="with what people and models say, and what tools log")
    replay.set_defaults(run=_run)


def _run(flags: argparse.Namespace) -> int:
    from ..replay import replay
    from ..stitch.anew import anew

    if flags.html == "-" and flags.otlp_json == "-":
        return fail("--html and --otlp-json cannot both go to standard output")
    try:
        result = replay(flags.file, content=flags.content, open_file=_opening())
    except OSError as error:
        return fail(f"{flags.file} cannot be read: {error.strerror}")
    if flags.new_trace_ids:
        result.spans = list(anew(result.spans, flags.new_trace_ids))
    requests = result.requests()
    failed = _put_out(requests, flags)
    for problem in result.problems:
        print(f"{flags.file}: {_harmless(problem)}", file=sys.stderr)
    return 1 if failed or result.problems else 0


def _put_out(requests: list[ExportTraceServiceRequest], flags: argparse.Namespace) -> int:
    """Show, write and send the spans, as the flags say; the exit status."""
    from ..tree import console, render

    if "-" not in (flags.html, flags.otlp_json):
        console().print(render(requests))
    for out, make in ((flags.otlp_json, _otlp_json), (flags.html, _page)):
        if out and (status := _write(out, make(requests))):
            return status
    if flags.to and (status := _send(requests, flags.to)):
        return status
    if flags.html and "-" not in (flags.html, flags.otlp_json):
        print(f"page: {Path(flags.html).resolve()}")
    return 0


def _otlp_json(requests: list[ExportTraceServiceRequest]) -> str:
    from ..otlp.encode import joined, to_otlp_json

    return to_otlp_json(joined(requests)) + "\n"


def _page(requests: list[ExportTraceServiceRequest]) -> str:
    from ..page.document import document
    from ..page.view import view

    return document(view(requests))


def _write(out: str, text: str) -> int:
    if out == "-":
        sys.stdout.write(text)
        return 0
    try:
        Path(out).write_text(text, encoding="utf-8")
    except OSError as error:
        return fail(f"{out} cannot be written: {error.strerror}")
    return 0


def _send(requests: list[ExportTraceServiceRequest], endpoint: str) -> int:
    from ..otlp.delivery import NotDelivered, deliver

    try:
        settings = settings_from(argparse.Namespace(endpoint=endpoint))
        with _progress(f"sending to {endpoint}", sum(request.ByteSize() for request in requests)) as advance:
            deliver(requests, settings, advance)
    except (SettingsError, NotDelivered) as error:
        return fail(str(error))
    return 0


# --- Progress, on a terminal only -------------------------------------------------------------------------------------


def _opening() -> Callable[[Path], AbstractContextManager[BinaryIO]]:
    """How to open the file: so that a long one says how far it is read."""
    from rich.progress import wrap_file

    @contextmanager
    def opened(path: Path) -> Iterator[BinaryIO]:
        with path.open("rb") as file:
            size = path.stat().st_size
            if size < LONG_BYTES or not sys.stderr.isatty():
                yield file
                return
            with wrap_file(
                file, size, description=f"reading {path.name}", console=_stderr(), transient=True
            ) as wrapped:
                yield wrapped

    return opened


@contextmanager
def _progress(what: str, size: int) -> Iterator[Callable[[int], None]]:
    from rich.progress import Progress

    with Progress(console=_stderr(), transient=True, disable=size < LONG_BYTES or not sys.stderr.isatty()) as progress:
        task = progress.add_task(what, total=size)
        yield lambda done: progress.advance(task, done)


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def _harmless(text: str) -> str:
    from ..tree import CONTROL

    return text.translate(CONTROL)
