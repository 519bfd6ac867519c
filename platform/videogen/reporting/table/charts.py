"""Small drawings as inline SVG, coloured by the page's style sheet; every number of them is in report.json too."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from videogen.data.tables.run_log import Sample
from videogen.reporting.table.histograms import Histogram, round_step
from videogen.reporting.table.words import article, decimals, rate_unit, short

_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 12, 16, 24
_GAP = 0.6
"""Pixels between two bars."""
_NUM_LINES = 4
_MAX_POINTS = 80
_LETTER = 6.1
"""Pixels of a letter of the labels, a little more than it takes."""


class Mark(NamedTuple):
    """A value that a rule of the policy compares with."""

    value: float
    label: str


class _Frame(NamedTuple):
    """Size of a drawing in pixels; letters are of one size in all, so it should be about that on the page."""

    width: int
    height: int

    @property
    def right(self) -> int:
        """Where the axis of x ends."""
        return self.width - _RIGHT

    @property
    def floor(self) -> int:
        """Where the axis of y starts."""
        return self.height - _BOTTOM

    def x(self, low: float, high: float) -> "_Axis":
        """Return the axis along the floor."""
        return _Axis(low, high, _LEFT, self.right)

    def y(self, high: float) -> "_Axis":
        """Return the upward axis, from 0 to the round number that is next above `high`."""
        step = round_step(high, _NUM_LINES) if high > 0 else 1.0
        return _Axis(0, math.ceil(high / step - 1e-9) * step if high > 0 else 1.0, self.floor, _TOP)


_SMALL, _WIDE = _Frame(340, 168), _Frame(560, 190)


class _Axis:
    """A linear axis."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high = low, high if high > low else low + 1
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        return self._start + (value - self.low) / (self.high - self.low) * (self._end - self._start)

    def ticks(self, at_most: int) -> list[tuple[float, str]]:
        step = round_step(self.high - self.low, at_most)
        digits = decimals(step)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        values = [number * step for number in range(first, last + 1)]
        big = max(abs(self.low), abs(self.high)) >= 10_000
        return [(value, "0" if not value else short(value) if big else f"{value:.{digits}f}") for value in values]


def draw_histogram(histogram: Histogram, marks: Sequence[Mark] = ()) -> Markup:
    """Return bars of kept rows with those of dropped ones on top, and a line at each value that a rule names."""
    edges = histogram.edges
    x = _SMALL.x(edges[0], edges[-1])
    y = _SMALL.y(float((histogram.kept + histogram.dropped).max()))
    parts = [*_grid(_SMALL, y), *_x_labels(_SMALL, x)]
    for number, (kept, dropped) in enumerate(zip(histogram.kept, histogram.dropped, strict=True)):
        left, right = x(edges[number]) + _GAP / 2, x(edges[number + 1]) - _GAP / 2
        for name, bottom, top in (("kept", 0, kept), ("dropped", kept, kept + dropped)):
            if top > bottom:
                height = max(y(float(bottom)) - y(float(top)), 1.0)
                where = f'x="{left:.1f}" y="{y(float(bottom)) - height:.1f}"'
                parts.append(f'<rect class="{name}" {where} width="{right - left:.1f}" height="{height:.1f}"/>')
    drawn = Markup("".join(parts))  # noqa: S704 - numbers and our own words only
    for mark in marks:
        if edges[0] <= mark.value <= edges[-1]:
            drawn += _mark(_SMALL, x(mark.value), mark.label)
    label = f"{histogram.name}: {short(histogram.least)} to {short(histogram.greatest)}"
    return _svg(_SMALL, label, drawn)


def draw_rate(samples: Sequence[Sample], unit: str) -> Markup:
    """Return items a second (minute, hour: as `words.rate` says the mean) over time, with the mean as a dashed line."""
    mean = samples[-1].done / samples[-1].seconds
    time, size = rate_unit(mean)
    seconds, rates = rates_over_time(samples)
    mean, rates = mean * size, [rate * size for rate in rates]
    divisor, time_unit = _time_unit(seconds[-1])
    x, y = _WIDE.x(0, seconds[-1] / divisor), _WIDE.y(max(rates))
    line = [f"{x(0):.1f},{y(rates[0]):.1f}"]
    for number, rate in enumerate(rates):
        line += [f"{x(seconds[at] / divisor):.1f},{y(rate):.1f}" for at in (number, number + 1)]
    parts = [*_grid(_WIDE, y), *_x_labels(_WIDE, x, time_unit)]
    corners = f"{_LEFT},{_WIDE.floor} {' '.join(line)} {_WIDE.right},{_WIDE.floor}"
    parts.append(f'<polygon class="area" points="{corners}"/>')
    parts.append(f'<polyline class="line" points="{" ".join(line)}"/>')
    parts.append(f'<line class="mean" x1="{_LEFT}" x2="{_WIDE.right}" y1="{y(mean):.1f}" y2="{y(mean):.1f}"/>')
    return _svg(_WIDE, f"{unit} {article(time)}, {short(mean)} on average", Markup("".join(parts)))  # noqa: S704


def draw_progress(samples: Sequence[Sample], unit: str) -> Markup:
    """Return the items that had ended by then: ok below, filtered and failed on top."""
    end = samples[-1]
    divisor, time_unit = _time_unit(end.seconds)
    x, y = _WIDE.x(0, end.seconds / divisor), _WIDE.y(end.done)
    parts = [*_grid(_WIDE, y), *_x_labels(_WIDE, x, time_unit)]
    floor = [0] * len(samples)
    for name in ("ok", "filtered", "failed"):
        ceiling = [low + getattr(sample, name) for low, sample in zip(floor, samples, strict=True)]
        if ceiling[-1] > floor[-1]:
            over = [f"{x(s.seconds / divisor):.1f},{y(top):.1f}" for s, top in zip(samples, ceiling, strict=True)]
            under = [f"{x(s.seconds / divisor):.1f},{y(low):.1f}" for s, low in zip(samples, floor, strict=True)]
            parts.append(f'<polygon class="{name}" points="{" ".join([*over, *reversed(under)])}"/>')
        floor = ceiling
    return _svg(_WIDE, f"{unit} that had ended, {end.done} in all", Markup("".join(parts)))  # noqa: S704


def rates_over_time(samples: Sequence[Sample]) -> tuple[list[float], list[float]]:
    """Return moments in seconds, and the items a second between each and the next (one fewer), about 80 at most."""
    times = np.array([sample.seconds for sample in samples])
    done = np.array([sample.done for sample in samples], float)
    num_points = max(1, min(_MAX_POINTS, len(samples) - 1))
    moments = np.linspace(0, times[-1], num_points + 1)
    rates = np.diff(np.interp(moments, times, done)) / np.maximum(np.diff(moments), 1e-9)
    return moments.tolist(), rates.tolist()


def _time_unit(seconds: float) -> tuple[float, str]:
    for divisor, unit in ((1.0, "s"), (60.0, "min"), (3600.0, "h")):
        if seconds < 180 * divisor:
            return divisor, unit
    return 86400.0, "days"


def _grid(frame: _Frame, y: _Axis) -> list[str]:
    parts = []
    for value, label in y.ticks(_NUM_LINES):
        at = f"{y(value):.1f}"
        kind = "floor" if value == 0 else "grid"
        parts.append(f'<line class="{kind}" x1="{_LEFT}" x2="{frame.right}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(value) + 3.5:.1f}" text-anchor="end">{label}</text>')
    return parts


def _x_labels(frame: _Frame, x: _Axis, unit: str = "") -> list[str]:
    parts = []
    for value, label in x.ticks(6):
        words = f"{label} {unit}" if unit and value else label
        half = len(words) * _LETTER / 2
        at = min(max(x(value), half), frame.width - half)
        parts.append(
            f'<line class="floor" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{frame.floor}" y2="{frame.floor + 3}"/>'
        )
        parts.append(f'<text x="{at:.1f}" y="{frame.height - 8}" text-anchor="middle">{words}</text>')
    return parts


def _mark(frame: _Frame, at: float, label: str) -> Markup:
    half = len(label) * _LETTER / 2
    middle = min(max(at, _LEFT + half), frame.right - half)
    line = Markup('<line class="mark" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>').format(at, _TOP - 3, frame.floor)
    text = Markup('<text class="said" x="{:.1f}" y="{}" text-anchor="middle">{}</text>')
    return line + text.format(middle, _TOP - 6, label)


def _svg(frame: _Frame, label: str, drawn: Markup) -> Markup:
    start = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">')
    return start.format(frame.width, frame.height, label) + drawn + Markup("</svg>")
