"""``realtime-otel replay``: the trace of a recorded event stream, without any server."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from . import fail

if TYPE_CHECKING:
    from . import Commands


def add(commands: Commands) -> None:
    replay = commands.add_parser("replay", help="show the trace of a recorded event stream")
    replay.add_argument("file", type=Path, metavar="FILE.jsonl", help='lines of {"t": seconds, "dir": …, "event": {…}}')
    replay.add_argument("--otlp-json", metavar="OUT", help="write the spans as OTLP/JSON; - is standard output")
    replay.add_argument("--content", action="store_true", help="show what people and models say, too")
    replay.set_defaults(run=_run)


def _run(flags: argparse.Namespace) -> int:
    from ..otlp.encode import encode_spans, to_otlp_json
    from ..replay import replay
    from ..tree import console, render

    try:
        result = replay(flags.file, content=flags.content)
    except OSError as error:
        return fail(f"{flags.file} cannot be read: {error.strerror}")
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
