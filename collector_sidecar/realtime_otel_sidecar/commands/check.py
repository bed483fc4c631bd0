"""``realtime-otel check``: is the chain whole, from an agent to the backend?"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import Settings, SettingsError, settings_from
from . import fail
from .flags import add_flag, help_all, rare

if TYPE_CHECKING:
    from ..checks.steps import Step
    from . import Commands

SETTINGS = (
    "listen",
    "data_dir",
    "endpoint",
    "endpoint_ca_file",
    "endpoint_certificate_file",
    "endpoint_key_file",
    "endpoint_token_file",
    "endpoint_token_in_clear",
    "endpoint_authority",
)
"""Those of the sidecar that say how it is reached, and how it reaches the collector."""
SIDECAR_FILES = ("ca_file", "certificate_file", "key_file", "authority")
ANYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "::": "[::1]"}  # noqa: S104 - what is listened at, not listening
"""Addresses that stand for all of a machine's, and how to get there from itself."""
STYLES = {"ok": "green", "failed": "bold red", "skipped": "dim", "note": "yellow"}
DESCRIPTION = """\
Try each connection between an agent, the Collector and the sidecar, then send a conversation of the service
realtime-otel-check over all of them and look for its trace. The agent's end is what OTEL_EXPORTER_OTLP_* say, as for
an agent; the sidecar's are its own flags and environment variables.
"""
STATUS = "Exit status: 0 all of it works, 1 something does not."


def add(commands: Commands) -> None:
    check = commands.add_parser("check", help="is the chain whole?", description=DESCRIPTION, epilog=STATUS)
    help_all(check)
    check.add_argument("--jaeger", metavar="URL", default="", help="where the pages of a Jaeger are (port 16686)")
    check.add_argument(
        "--agent-side", action="store_true", help="try only what an agent reaches: the Collector, Jaeger"
    )
    where = "host:port of the sidecar, or https://host:port for TLS (default: what --listen says)"
    check.add_argument("--sidecar", metavar="ENDPOINT", default="", help=where)
    for name in SIDECAR_FILES:
        text = f"as {'--endpoint-' + name.replace('_', '-')}, for the sidecar"
        metavar = "FILE" if name.endswith("_file") else "NAME"
        rare(check, "--sidecar-" + name.replace("_", "-"), text, metavar=metavar, default="")
    check.add_argument(
        "--timeout",
        type=_seconds,
        default=20.0,
        metavar="SECONDS",
        help="how long to wait for the trace (default: %(default)s)",
    )
    check.add_argument("--json", action="store_true", help="for programs")
    for name in SETTINGS:
        add_flag(check, name)
    check.set_defaults(run=_run)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds") from None


def _run(flags: argparse.Namespace) -> int:
    from ..checks.steps import State

    try:
        settings = settings_from(flags)
        sidecar = _sidecar(flags, settings)
    except SettingsError as error:
        return fail(str(error))
    steps = []
    for step in _steps(flags, settings, sidecar):
        steps.append(step)
        if not flags.json:
            _show(step)
    if flags.json:
        print(json.dumps([asdict(step) for step in steps], ensure_ascii=False, indent=1))
    return 1 if any(step.state is State.FAILED for step in steps) else 0


def _sidecar(flags: argparse.Namespace, settings: Settings) -> Settings:
    """Settings to whom the sidecar is the endpoint; they know of no token, for its health service wants none.

    Raises:
        SettingsError: they do not go together.
    """
    endpoint = flags.sidecar
    if not endpoint:
        host, _, port = settings.listen.rpartition(":")
        endpoint = f"{'https' if settings.listen_certificate_file else 'http'}://{ANYWHERE.get(host, host)}:{port}"
    files = {f"endpoint_{name}": getattr(flags, f"sidecar_{name}") for name in SIDECAR_FILES}
    return replace(settings, endpoint=endpoint, endpoint_token_file="", endpoint_token_in_clear=False, **files)


def _steps(flags: argparse.Namespace, settings: Settings, sidecar: Settings) -> Iterator[Step]:
    from ..checks import hops
    from ..checks.arrival import await_acknowledgement, await_trace
    from ..checks.probe import make_probe
    from ..checks.steps import State, Step
    from ..checks.tools import tool_logs
    from ..store.folder import NAME, StoreError

    probe = make_probe(settings.keep_ratio)
    was_sent = False
    for step in hops.send_probe(probe):
        was_sent = step.state is State.OK
        yield step
    if not flags.agent_side:
        yield hops.sidecar_health(sidecar)
        yield from hops.way_back(settings)
    has_folder = _may_be_there(settings.path / NAME)
    if not was_sent:
        yield Step("the conversation's trace", State.SKIPPED, "it was not sent")
    elif flags.jaeger:
        yield await_trace(probe, flags.jaeger, settings, flags.timeout)
    elif has_folder:
        yield await_acknowledgement(probe, settings, flags.timeout)
    else:
        where = f"with --jaeger it is looked for, and there is no {settings.path / NAME}"
        yield Step("the conversation's trace", State.SKIPPED, where)
    if has_folder:
        try:
            yield from tool_logs(settings.path)
        except StoreError as error:
            yield Step("the data directory", State.FAILED, str(error))


def _may_be_there(path: Path) -> bool:
    """Whether it is worth reading; of what cannot be looked at, reading says why."""
    try:
        return path.exists()
    except OSError:
        return True


def _show(step: Step) -> None:
    from rich.padding import Padding
    from rich.text import Text

    from ..tree import console, harmless

    out, state = console(), step.state.value
    out.print(harmless(Text.assemble((f"{state:<8}", STYLES[state]), (step.name, "bold"), ": ", step.said)))
    if step.advice:
        out.print(Padding(harmless(Text(step.advice)), (0, 0, 0, 8), expand=False))
