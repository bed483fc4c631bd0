"""The log for programs: a JSON object on each line, whatever is logged, and each line says which event it is."""

from __future__ import annotations

import ast
import json
import logging
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import realtime_otel_sidecar
from realtime_otel_sidecar.logs import RESERVED, JsonFormatter
from tests.contract.test_operating_docs import DOCS

SOURCES = Path(realtime_otel_sidecar.__file__).parent
METHODS = {"info", "warning", "error", "exception", "critical", "log"}


def written(message: str, *values: object, level: int = logging.WARNING, **more: Any) -> dict[str, Any]:
    """What a logger's line is as JSON."""
    record = logging.getLogger("some.part").makeRecord(
        "some.part", level, "file.py", 1, message, values, more.pop("exc_info", None), extra=more
    )
    text = JsonFormatter().format(record)
    assert "\n" not in text
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_line_has_time_severity_message_and_its_fields() -> None:
    line = written("%d spans of %r", 3, "a service", event="spans_lost", count=3, limits={"max_streams": 2})
    at = datetime.fromisoformat(line.pop("time"))
    assert at.tzinfo == UTC
    assert abs((datetime.now(UTC) - at).total_seconds()) < 60
    assert line == {
        "severity": "WARN",
        "logger": "some.part",
        "message": "3 spans of 'a service'",
        "event": "spans_lost",
        "count": 3,
        "limits": {"max_streams": 2},
    }


@pytest.mark.parametrize(("level", "severity"), [(20, "INFO"), (30, "WARN"), (40, "ERROR"), (50, "FATAL")])
def test_severities_are_those_of_opentelemetry(level: int, severity: str) -> None:
    assert written("x", level=level)["severity"] == severity


def test_an_exception_is_told_by_the_semantic_conventions() -> None:
    try:
        raise json.JSONDecodeError("no", "doc\nument", 1)
    except ValueError:
        line = written("failed", exc_info=sys.exc_info())
    assert line["exception.type"] == "json.decoder.JSONDecodeError"
    assert line["exception.message"].startswith("no: line 1")
    assert line["exception.stacktrace"].startswith("Traceback (most recent call last):\n")
    assert "raise json.JSONDecodeError" in line["exception.stacktrace"]


@pytest.mark.parametrize(
    "value", ["\ud800", "\x00\x1b[31m\u2028", "名前", b"bytes", object(), {1: Path("a")}, float("nan")]
)
def test_nothing_breaks_the_line(value: object) -> None:
    line = written("%s", value, value=value)
    assert line["message"] == str(value)


def test_a_field_never_takes_the_place_of_what_each_line_has() -> None:
    assert written("the message", severity="none", time="never", logger="nobody")["severity"] == "WARN"


# --- Each line of ours ------------------------------------------------------------------------------------------------


def calls() -> Iterator[tuple[str, ast.Call, ast.FunctionDef]]:
    """Each call that logs: where it is, the call, and its function."""
    for path in sorted(SOURCES.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef):
                continue
            for call in ast.walk(function):
                match call:
                    case ast.Call(func=ast.Attribute(value=ast.Name(id="logger"), attr=method)) if method in METHODS:
                        yield f"{path.relative_to(SOURCES)}:{call.lineno}", call, function


def dictionaries(call: ast.Call, function: ast.FunctionDef) -> Iterator[ast.Dict]:
    """What the call's ``extra`` is made of, a name resolved by what was assigned to it last before the call."""
    extra = [keyword.value for keyword in call.keywords if keyword.arg == "extra"]
    for part in [part for each in extra for part in ast.walk(each)]:
        if isinstance(part, ast.Dict):
            yield part
        elif isinstance(part, ast.Name):
            before = [
                each
                for each in ast.walk(function)
                if isinstance(each, ast.Assign)
                and each.lineno < call.lineno
                and [target.id for target in each.targets if isinstance(target, ast.Name)] == [part.id]
            ]
            if before:
                value = max(before, key=lambda each: each.lineno).value
                yield from (found for found in ast.walk(value) if isinstance(found, ast.Dict))


def fields() -> Iterator[tuple[str, dict[str, ast.expr | None]]]:
    """Where each call is, and what it gives by ``extra``."""
    for where, call, function in calls():
        pairs = [pair for found in dictionaries(call, function) for pair in zip(found.keys, found.values, strict=True)]
        yield where, {str(key.value): value for key, value in pairs if isinstance(key, ast.Constant)}


def test_each_line_says_which_event_it_is() -> None:
    lines = list(fields())
    assert len(lines) > 40
    assert [where for where, keys in lines if "event" not in keys] == []


def test_no_field_has_the_name_of_what_a_record_has_anyway() -> None:
    assert [(where, name) for where, keys in fields() for name in keys if name in RESERVED] == []


def test_the_docs_list_each_event_with_its_fields() -> None:
    found: dict[str, set[str]] = {}
    for _, keys in fields():
        event = keys.pop("event")
        assert isinstance(event, ast.Constant)
        found.setdefault(str(event.value), set()).update(keys)
    section = (DOCS / "operations.md").read_text("utf-8").partition("\n## Log\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `")]
    words = re.compile(r"`(\w+)`")
    told = {event: set(words.findall(names)) for events, names in rows for event in words.findall(events)}
    assert told.keys() == found.keys()
    assert [event for event in found if not found[event] <= told[event]] == []
    every = set().union(*found.values(), {"endpoint"})
    assert set().union(*told.values()) == every, "no field is named that is on no line"
