"""A dashboard as a page: its panels in their places, drawn from what Prometheus answers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any, Final, NamedTuple

from tests.monitoring import boards
from tests.monitoring.pictures import drawing
from tests.monitoring.pictures.drawing import Series, Shown
from tests.stack.processes import Prometheus

COLUMN, ROW, GAP, HEAD = 60, 34, 8, 30
WIDTH: Final = 24 * COLUMN
EXEMPLARS: Final = 50
"""At most, on a panel."""
STYLE: Final = """
body { margin: 0; background: #f4f5f7; font: 12px "DejaVu Sans", Helvetica, Arial, sans-serif; color: #24292e }
header { padding: 14px 16px 6px; font-size: 19px; font-weight: 600 }
header span { font-size: 12px; font-weight: 400; color: #6b7280; margin-left: 12px }
main { position: relative }
section { position: absolute; box-sizing: border-box; overflow: hidden }
section { background: #fff; border: 1px solid #dfe2e6; border-radius: 3px }
h2 { margin: 0; padding: 8px 12px 0; font-size: 13px; font-weight: 600; white-space: nowrap }
h3 { position: absolute; margin: 0; padding: 10px 8px; font-size: 14px }
svg { display: block; font-size: 11px }
table { border-collapse: collapse; width: 100%; margin-top: 4px }
td, th { text-align: left; padding: 5px 12px; border-top: 1px solid #e3e6ea; font-weight: 400 }
th { color: #6b7280; border: 0 }
"""


class Window(NamedTuple):
    """The time that is shown, in Unix seconds."""

    begin: float
    end: float
    step: float = 4.0

    def filled(self, expression: str) -> str:
        """With this window's length, and a rate's window that has a few samples."""
        text = expression.replace("$__range", f"{self.end - self.begin:.0f}s").replace("$__rate_interval", "30s")
        return boards.filled(text)


def page(board: dict[str, Any], prometheus: Prometheus, window: Window, *, height: int) -> str:
    """The first panels of a dashboard, down to that many units of its grid. What is not Prometheus' is left out."""
    parts, bottom = [], 0
    for panel, at in placed(board, height):
        x, y = at["x"] * COLUMN + GAP // 2, at["y"] * ROW
        wide, tall = at["w"] * COLUMN - GAP, at["h"] * ROW - GAP
        bottom = max(bottom, y + tall)
        if panel["type"] == "row":
            parts.append(f'<h3 style="left:{x}px;top:{y - 6}px">{escape(panel["title"])}</h3>')
            continue
        drawn = Panel(panel, prometheus, window).drawn(wide, tall - HEAD)
        place = f"left:{x}px;top:{y}px;width:{wide}px;height:{tall}px"
        parts.append(f'<section style="{place}"><h2>{escape(panel["title"])}</h2>{drawn}</section>')
    title = f"<header>{escape(board['title'])}<span>{escape(board['description'])}</span></header>"
    style = f"<style>{STYLE} main {{ height: {bottom + GAP}px }}</style>"
    return f"<!doctype html><meta charset=utf-8>{style}{title}<main>{''.join(parts)}</main>"


def placed(board: dict[str, Any], height: int) -> Iterator[tuple[dict[str, Any], dict[str, int]]]:
    """Panels with their places, moved up by what is left out above them."""
    left_out = 0
    for panel in board["panels"]:
        at = dict(panel["gridPos"])
        if panel["type"] != "row" and not any(
            target["datasource"]["uid"] == "prometheus" for target in panel["targets"]
        ):
            left_out += at["h"]
            continue
        at["y"] -= left_out
        if at["y"] + at["h"] > height:
            return
        yield panel, at


class Panel:
    """One panel, and what its queries give."""

    def __init__(self, panel: dict[str, Any], prometheus: Prometheus, window: Window) -> None:
        self._panel, self._prometheus, self._window = panel, prometheus, window
        self._defaults = panel.get("fieldConfig", {}).get("defaults", {})
        self._unit = self._defaults.get("unit", "short")

    def drawn(self, width: int, height: int) -> str:
        kind = self._panel["type"]
        begin, end, step = self._window
        if kind == "timeseries":
            return drawing.curves(self._curves(), width, height, begin, end)
        if kind == "heatmap":
            return drawing.heat(self._buckets(), "s", width, height, begin, end, step)
        if kind == "stat":
            return self._figure(width, height)
        if kind == "table":
            return self._table()
        raise ValueError(f"no drawing of a {kind}")

    def _curves(self) -> Shown:
        custom = self._defaults.get("custom", {})
        series = [one for target in self._panel["targets"] for one in self._series(target)]
        exemplars = [
            point for target in self._panel["targets"] if target.get("exemplar") for point in self._exemplars(target)
        ]
        thresholds = self._defaults.get("thresholds", {}).get("steps", []) if custom.get("thresholdsStyle") else []
        limits = [step["value"] for step in thresholds if step.get("value") is not None]
        stacked = custom.get("stacking", {}).get("mode") == "normal"
        shown = exemplars if self._unit == "s" else []
        return Shown(series, shown, self._unit, stacked, limits[0] if limits else None, self._defaults.get("max"))

    def _series(self, target: dict[str, Any]) -> Iterator[Series]:
        begin, end, step = self._window
        found = self._prometheus.get(
            "query_range", query=self._window.filled(target["expr"]), start=begin, end=end, step=step
        )["result"]
        for one in found:
            points = [(float(time), float(value)) for time, value in one["values"] if math.isfinite(float(value))]
            if points:
                yield Series(named(target["legendFormat"], one["metric"]), points)

    def _exemplars(self, target: dict[str, Any]) -> list[tuple[float, float]]:
        """Some of them, spread over the time, as Grafana thins them out."""
        begin, end, _ = self._window
        found = self._prometheus.get("query_exemplars", query=self._window.filled(target["expr"]), start=begin, end=end)
        points = [(float(each["timestamp"]), float(each["value"])) for one in found for each in one["exemplars"]]
        inside = sorted(point for point in points if begin <= point[0] <= end)
        return inside[:: len(inside) // EXEMPLARS + 1]

    def _buckets(self) -> list[Series]:
        """From sums up to a bound to what is between two of them."""
        rows = sorted(self._series(self._panel["targets"][0]), key=lambda one: float(one.name.replace("+Inf", "inf")))
        below: dict[float, float] = {}
        own = []
        for one in rows:
            own.append(
                Series(
                    one.name.removesuffix(".0"),
                    [(time, max(0.0, value - below.get(time, 0.0))) for time, value in one.points],
                )
            )
            below = dict(one.points)
        used = [number for number, one in enumerate(own) if any(value > 0 for _, value in one.points)]
        return own[used[0] : used[-1] + 1] if used else []

    def _figure(self, width: int, height: int) -> str:
        found = self._instant(self._panel["targets"][0])
        value = found[0][1] if found else None
        color = "blue"
        for step in self._defaults.get("thresholds", {}).get("steps", []):
            if step.get("value") is None or (value is not None and value >= step["value"]):
                color = step["color"]
        return drawing.figure(value, self._unit, self._defaults.get("decimals"), color, width, height)

    def _table(self) -> str:
        names: dict[str, str] = self._panel["transformations"][1]["options"]["renameByName"]
        units = {
            override["matcher"]["options"]: each["value"]
            for override in self._panel["fieldConfig"]["overrides"]
            for each in override["properties"]
            if each["id"] == "unit"
        }
        rows: dict[tuple[str, ...], dict[str, str]] = {}
        labels = [name for name in names if not name.startswith("Value #")]
        for target in self._panel["targets"]:
            column = names[f"Value #{target['refId']}"]
            for metric, value in self._instant(target):
                row = rows.setdefault(tuple(metric.get(label, "") for label in labels[:2]), {})
                row |= {names[label]: metric[label] for label in labels if label in metric}
                row[column] = drawing.written(value, units.get(column, "short"))
        headings = list(names.values())
        return drawing.sheet(headings, [[row.get(name, "") for name in headings] for _, row in sorted(rows.items())])

    def _instant(self, target: dict[str, Any]) -> Sequence[tuple[dict[str, str], float]]:
        found = self._prometheus.get("query", query=self._window.filled(target["expr"]), time=self._window.end)[
            "result"
        ]
        return [(one["metric"], float(one["value"][1])) for one in found]


def named(legend: str, labels: dict[str, str]) -> str:
    """A legend with the labels' values in it."""
    if legend == "__auto":
        return ", ".join(labels.values()) or "value"
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend).strip() or "(none)"
