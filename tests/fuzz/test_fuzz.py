"""The fuzzer, for as long as a test may take; and that its oracles and its runs would notice a defect."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from random import Random

import pytest
from msgspec import structs
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan

from realtime_otel_sidecar.otlp import encode
from realtime_otel_sidecar.stitch.order import Order
from realtime_otel_sidecar.stitch.record import Record
from realtime_otel_sidecar.stitch.session import Session
from realtime_otel_sidecar.stitch.spans import Span
from realtime_otel_sidecar.stitch.stitcher import Stitcher
from tests.fuzz import campaign
from tests.fuzz.targets import REGRESSIONS, TARGETS

FUZZED = pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed: no wheel for this machine")
RUNS = {"request": 400, "events": 800, "recording": 250}
"""Inputs that each target is given: less than ten seconds of one core."""
FOUND = sorted(path for path in REGRESSIONS.glob("*/*"))


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.name)
def test_what_once_refuted_something_refutes_nothing(path: Path) -> None:
    TARGETS[path.parent.name].check(path.read_bytes())


@FUZZED
@pytest.mark.parametrize("name", TARGETS)
def test_a_short_run_finds_nothing(name: str, tmp_path: Path) -> None:
    finding = campaign.run(name, tmp_path, [f"-runs={RUNS[name]}", "-seed=1"])
    assert finding.status == 0, f"{finding}\n{finding.log.read_text('utf-8', 'replace')[-4000:]}"
    assert finding.inputs >= RUNS[name]
    assert finding.branches > 1000, "without coverage the fuzzer is blind"


# --- It would notice ------------------------------------------------------------------------------------------------


PLANTED = """
import sys
from tests.fuzz import harness
from tests.fuzz.targets import TARGETS

def check(data):
    assert b"1e999" not in data

TARGETS["events"] = TARGETS["events"]._replace(check=check)
harness.fuzz(sys.argv[1:])
"""


CRASHING = f"""
import functools, sys
from tests.fuzz import __main__ as command, campaign

command.run = functools.partial(campaign.run, command=[sys.executable, "-c", {PLANTED!r}])
sys.exit(command.main())
"""


@FUZZED
def test_a_defect_that_is_planted_is_found_and_its_input_is_kept(tmp_path: Path) -> None:
    options = ["--target", "events", "--minutes", "0.5", "--seed", "1", "--folder", str(tmp_path)]
    ended = ran("-c", CRASHING, *options)
    assert ended.returncode == 1
    (kept,) = re.findall(r"--reproduce events (\S+)", ended.stdout)
    assert b"1e999" in Path(kept).read_bytes()


def test_an_input_is_tried_again_without_a_fuzzer() -> None:
    assert "refutes nothing" in ran("-m", "tests.fuzz", "--reproduce", "request", str(FOUND[-1])).stdout


def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100, cwd=campaign.ROOT)


def fails_on_items(_session: Session, record: Record, _rules: object) -> None:
    if record.item_id:
        raise RuntimeError("a defect")


def without(**changes: object) -> Callable[[Span], ProtoSpan]:
    """Encodes each span with something that no backend takes."""
    real = encode.encode_span
    return lambda span: real(structs.replace(span, **changes))


DEFECTS: dict[str, tuple[object, str, object]] = {
    "an exception in the core": (Session, "_apply", fails_on_items),
    "a record that is lost": (Order, "offer", lambda _order, _record: True),
    "a duplicate that nobody counts": (Stitcher, "_refuse", lambda *_: None),
    "a restart that forgets": (Stitcher, "restore", lambda *_, **__: None),
    "a trace id that is none": (encode, "encode_span", without(trace_id=bytes(16))),
    "a span without a name": (encode, "encode_span", without(name="")),
    "a span that ends before it starts": (encode, "encode_span", without(end=0)),
}


def refuted(name: str) -> bool:
    """Whether one of a few inputs refutes something."""
    target = TARGETS[name]
    seed = target.seeds()["one-tool" if name != "events" else "response.done"]
    try:
        target.check(seed + seed)
        for number in range(50):
            target.check(target.mutate(seed, Random(number)))
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("defect", DEFECTS.values(), ids=DEFECTS)
def test_no_defect_gets_past_the_oracles(defect: tuple[object, str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    assert not refuted("request")
    monkeypatch.setattr(*defect)
    assert refuted("request")


@pytest.mark.parametrize("name", TARGETS)
def test_an_exception_in_the_core_gets_past_the_oracles_of_no_target(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not refuted(name)
    monkeypatch.setattr(*DEFECTS["an exception in the core"])
    assert refuted(name)
