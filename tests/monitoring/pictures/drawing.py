"""A panel's answers as SVG, close to how Grafana shows them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final, NamedTuple

PALETTE: Final = (
    "#3274d9",
    "#e0752d",
    "#37872d",
    "#a352cc",
    "#e02f44",
    "#0a9396",
    "#b8860b",
    "#6d4c41",
    "#7b8794",
    "#d63384",
)
COLORS: Final = {"green": "#2f8132", "orange": "#c76a12", "red": "#c4162a", "blue": "#1f60c4"}
INK, FAINT, LINE = "#24292e", "#6b7280", "#e3e6ea"
LEFT, RIGHT, TOP, BOTTOM, LEGEND = 54, 14, 10, 22, 22
CHARACTER: Final = 6.9
"""Width of a legend's character, in pixels."""


class Series(NamedTuple):
    """A curve: its name, and its points as times and values."""

    name: str
    points: list[tuple[float, float]]


class Shown(NamedTuple):
    """What a panel of curves has."""

    series: list[Series]
    exemplars: list[tuple[float, float]]
    unit: str
    stacked: bool = False
    limit: float | None = None
    most: float | None = None


class Frame:
    """Pixels of times and values."""

    def __init__(self, width: int, height: int, begin: float, end: float, top: float) -> None:
        self.width, self.height = width, height
        self.bottom = height - BOTTOM - LEGEND
        self._begin, self._end, self._top = begin, end, top

    def x(self, time: float) -> float:
        share = (time - self._begin) / (self._end - self._begin)
        return LEFT + share * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return self.bottom - min(1.0, value / self._top) * (self.bottom - TOP)


def curves(shown: Shown, width: int, height: int, begin: float, end: float) -> str:
    """Lines, or areas one on the other, with axes, exemplars, a limit and a legend."""
    placed = _stack(shown.series) if shown.stacked else [(one, [0.0] * len(one.points)) for one in shown.series]
    highest = max(
        [
            *(base + value for one, bases in placed for (_, value), base in zip(one.points, bases, strict=True)),
            *(value for _, value in shown.exemplars),
        ],
        default=1.0,
    )
    top = shown.most or _ceiling(highest)
    frame = Frame(width, height, begin, end, top)
    parts = [*_axes(frame, top, shown.unit, begin, end)]
    for number, (one, bases) in enumerate(placed):
        parts += _curve(frame, one, bases, PALETTE[number % len(PALETTE)], stacked=shown.stacked)
    if shown.limit and shown.limit <= top:
        y = frame.y(shown.limit)
        parts.append(
            f'<line x1="{LEFT}" x2="{width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
            'stroke="#c4162a" stroke-dasharray="6 4"/>'
        )
    parts += [_diamond(frame.x(time), frame.y(value)) for time, value in shown.exemplars]
    if not shown.series:
        parts.append(_text(width / 2, frame.bottom / 2, "nothing", anchor="middle"))
    parts += _legend([one.name for one in shown.series], width, height)
    return _svg(parts, width, height)


def heat(rows: Sequence[Series], unit: str, width: int, height: int, begin: float, end: float, step: float) -> str:
    """Buckets from below, each as long as it has measurements, darker with more."""
    most = max((value for one in rows for _, value in one.points), default=1) or 1
    frame = Frame(width, height, begin, end, len(rows))
    parts = []
    for number, one in enumerate(rows):
        for time, value in one.points:
            if value > 0:
                x, y, right = frame.x(time - step), frame.y(number + 1), frame.x(time)
                depth = 0.12 + 0.88 * math.sqrt(value / most)
                tall = frame.y(number) - y
                parts.append(
                    f'<rect x="{max(x, LEFT):.1f}" y="{y + 0.5:.1f}" width="{max(0, right - max(x, LEFT)) + 0.3:.1f}" '
                    f'height="{tall - 1:.1f}" fill="#1f60c4" fill-opacity="{depth:.2f}"/>'
                )
    every = max(1, len(rows) // 7)
    for number in range(0, len(rows), every):
        text = f"{rows[number].name} {unit}".strip()
        parts.append(_text(LEFT - 6, frame.y(number + 0.5) + 4, text, anchor="end"))
    parts += _times(frame, begin, end)
    return _svg(parts, width, height)


def figure(value: float | None, unit: str, decimals: int | None, color: str, width: int, height: int) -> str:
    """One number."""
    text = "–" if value is None or not math.isfinite(value) else written(value, unit, decimals)
    size = min(40, int((width - 20) / max(1, len(text)) * 1.5))
    place = f'x="{width / 2}" y="{height / 2 + size / 3:.0f}" text-anchor="middle"'
    return _svg(
        [f'<text {place} font-size="{size}" font-weight="600" fill="{COLORS.get(color, INK)}">{escape(text)}</text>'],
        width,
        height,
    )


def written(value: float, unit: str, decimals: int | None = None) -> str:
    """A value with its unit."""
    if unit == "percentunit":
        return f"{_plain(value * 100, decimals)} %"
    if unit == "s":
        return (
            f"{_plain(value * 1000, 0)} ms"
            if 0 < abs(value) < 1 and decimals is None
            else f"{_plain(value, decimals)} s"
        )
    scale = 1024 if unit == "bytes" else 1000
    letters = ("", "Ki", "Mi", "Gi") if unit == "bytes" else ("", " K", " M", " G")
    power = 0
    while abs(value) >= scale and power < len(letters) - 1:
        value, power = value / scale, power + 1
    suffix = {"bytes": "B", "cpm": "/min", "cps": "/s"}.get(unit, "")
    return f"{_plain(value, decimals)}{' ' if unit == 'bytes' else ''}{letters[power]}{suffix}"


def _plain(value: float, decimals: int | None) -> str:
    if decimals is not None:
        return f"{value:.{decimals}f}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _stack(series: Sequence[Series]) -> list[tuple[Series, list[float]]]:
    """Each on top of those before it."""
    heights: dict[float, float] = {}
    placed = []
    for one in series:
        placed.append((one, [heights.get(time, 0.0) for time, _ in one.points]))
        for time, value in one.points:
            heights[time] = heights.get(time, 0.0) + value
    return placed


def _curve(frame: Frame, one: Series, bases: Sequence[float], color: str, *, stacked: bool) -> list[str]:
    points = [
        (frame.x(time), frame.y(base + value), frame.y(base))
        for (time, value), base in zip(one.points, bases, strict=True)
    ]
    if not points:
        return []
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
    under = " ".join(f"{x:.1f},{y:.1f}" for x, _, y in reversed(points))
    opacity = 0.45 if stacked else 0.07
    return [
        f'<polygon points="{line} {under}" fill="{color}" fill-opacity="{opacity}"/>',
        f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="1.6" stroke-linejoin="round"/>',
    ]


def _axes(frame: Frame, top: float, unit: str, begin: float, end: float) -> Iterable[str]:
    for number in range(5):
        value = top * number / 4
        y = frame.y(value)
        yield f'<line x1="{LEFT}" x2="{frame.width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{LINE}"/>'
        yield _text(LEFT - 6, y + 4, written(value, unit), anchor="end")
    yield from _times(frame, begin, end)


def _times(frame: Frame, begin: float, end: float) -> Iterable[str]:
    """A mark a minute, counted from the left."""
    every = 60 if end - begin > 150 else 30
    for passed in range(every, int(end - begin), every):
        yield _text(frame.x(begin + passed), frame.bottom + 15, f"{passed // 60}:{passed % 60:02}", anchor="middle")


def _legend(names: Sequence[str], width: int, height: int) -> Iterable[str]:
    x, y = 12.0, height - 8
    for number, name in enumerate(names):
        length = 20 + CHARACTER * len(name)
        if x + length > width - 30 and number < len(names):
            yield _text(x, y, f"+{len(names) - number}")
            return
        yield f'<rect x="{x:.1f}" y="{y - 7}" width="10" height="4" rx="2" fill="{PALETTE[number % len(PALETTE)]}"/>'
        yield _text(x + 14, y, name, color=INK)
        x += length + 6


def _diamond(x: float, y: float) -> str:
    return f'<path d="M{x:.1f} {y - 4:.1f}l4 4l-4 4l-4 -4z" fill="#fff" stroke="#5b21b6" stroke-width="1.3"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", color: str = FAINT) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">{escape(text)}</text>'


def _ceiling(value: float) -> float:
    """The next round number above."""
    if value <= 0:
        return 1.0
    power = 10 ** math.floor(math.log10(value))
    steps = (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 5, 6, 8, 10)
    return float(next(step * power for step in steps if step * power >= value))


def _svg(parts: Iterable[str], width: int, height: int) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">{"".join(parts)}</svg>'


def sheet(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table."""
    head = "".join(f"<th>{escape(name)}</th>" for name in headings)
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
