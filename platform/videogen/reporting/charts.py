"""SVG charts for HTML reports: histogram, rate over time, progress, loss curve.

The charts are written by this module instead of a plotting library because pages must be one file without scripts that
follows the reader's light or dark colour scheme: here every shape has a class, and the page's style sheet colours it. A
chart takes 1 to 2 kB. matplotlib writes colours and fonts into the SVG, 23 kB for the same histogram, takes 1.2 s to
import and adds 74 MB to an installation; Plotly and Vega draw with scripts.

Labels are measured in pixels of the viewBox, so a chart should be shown at about the width of its canvas.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from markupsafe import Markup

from videogen.reporting.column_statistics import Histogram
from videogen.reporting.formatting import decimals, per, rate_unit, round_step, short
from videogen.reporting.run_log import Sample

_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 16, 24
"""Margins in pixels."""
_BAR_GAP = 0.6
_NUM_GRID_LINES = 4
_NUM_LABELS = 6
_MAX_POINTS = 80
_CHARACTER_WIDTH = 6.1
_SMALL, _WIDE = (340, 168), (560, 190)
"""Width and height in pixels."""


class Mark(NamedTuple):
    """Threshold that a policy rule compares the column with."""

    value: float
    label: str


# --- axes --------------------------------------------------------------------------------------------------------


class _Axis(Protocol):
    """Map from values to pixels, with labelled ticks."""

    def __call__(self, value: float) -> float: ...

    def ticks(self, at_most: int) -> list[tuple[float, str]]: ...


class _LinearAxis:
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
        is_large = max(abs(self.low), abs(self.high)) >= 10_000
        return [(value, "0" if not value else short(value) if is_large else f"{value:.{digits}f}") for value in values]


class _LogAxis:
    """Logarithmic axis over positive values, with some room at both ends."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        pad = max(0.05, 0.08 * (math.log10(high) - math.log10(low)))
        self._low, self._high = math.log10(low) - pad, math.log10(high) + pad
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        return self._start + (math.log10(value) - self._low) / (self._high - self._low) * (self._end - self._start)

    def ticks(self, at_most: int) -> list[tuple[float, str]]:
        decades = range(math.floor(self._low), math.ceil(self._high) + 1)
        for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8), tuple(np.arange(1, 10, 0.25))):
            values = [digit * 10.0**decade for decade in decades for digit in digits]
            inside = [value for value in values if self._low <= math.log10(value) <= self._high]
            if len(inside) >= 2:
                return [(value, f"{value:g}") for value in inside[:: math.ceil(len(inside) / at_most)]]
        middle = 10 ** ((self._low + self._high) / 2)
        return [(middle, f"{middle:g}")]


# --- canvas ------------------------------------------------------------------------------------------------------


class _Canvas:
    """SVG drawing in progress; `text` and `svg` escape their strings, everything else is numbers and class names."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.width, self.height = size
        self.right, self.floor = self.width - _RIGHT, self.height - _BOTTOM
        self._parts: list[str] = []

    def linear_x(self, low: float, high: float) -> _LinearAxis:
        return _LinearAxis(low, high, _LEFT, self.right)

    def count_y(self, high: float) -> _LinearAxis:
        """Return the upward axis from 0 to the next round number above `high`."""
        step = round_step(high, _NUM_GRID_LINES) if high > 0 else 1.0
        return _LinearAxis(0, math.ceil(high / step - 1e-9) * step if high > 0 else 1.0, self.floor, _TOP)

    def log_y(self, low: float, high: float) -> _LogAxis:
        return _LogAxis(low, high, self.floor, _TOP)

    def grid(self, y: _Axis, at_most: int = _NUM_GRID_LINES) -> None:
        for value, label in y.ticks(at_most):
            at = y(value)
            self.line("floor" if value == 0 else "grid", _LEFT, self.right, at, at)
            self.text(_LEFT - 6, at + 3.5, label, anchor="end")

    def x_labels(self, x: _Axis, unit: str = "") -> None:
        for value, label in x.ticks(_NUM_LABELS):
            self.line("floor", x(value), x(value), self.floor, self.floor + 3)
            self.centred_text(x(value), self.height - 8, f"{label} {unit}" if unit and value else label, 0, self.width)

    def line(self, kind: str, x1: float, x2: float, y1: float, y2: float) -> None:
        self._parts.append(f'<line class="{kind}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>')

    def bar(self, kind: str, left: float, right: float, bottom: float, top: float) -> None:
        height = max(bottom - top, 1.0)
        where = f'x="{left:.1f}" y="{bottom - height:.1f}" width="{right - left:.1f}" height="{height:.1f}"'
        self._parts.append(f'<rect class="{kind}" {where}/>')

    def shape(self, tag: str, kind: str, points: Iterable[tuple[float, float]]) -> None:
        """Add a "polyline" or "polygon"."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(f'<{tag} class="{kind}" points="{path}"/>')

    def dot(self, kind: str, x: float, y: float) -> None:
        self._parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')

    def text(self, x: float, y: float, label: str, anchor: str, kind: str = "label") -> None:
        element = Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
        self._parts.append(element.format(kind, x, y, anchor, label))

    def centred_text(self, x: float, y: float, label: str, low: float, high: float, kind: str = "label") -> None:
        """Add text centred at `x`, moved so that it stays between `low` and `high`."""
        half = len(label) * _CHARACTER_WIDTH / 2
        self.text(min(max(x, low + half), high - half), y, label, "middle", kind)

    def svg(self, label: str) -> Markup:
        start = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">')
        drawn = Markup("".join(self._parts))  # noqa: S704 - see the class
        return start.format(self.width, self.height, label) + drawn + Markup("</svg>")


# --- charts ------------------------------------------------------------------------------------------------------


def draw_histogram(histogram: Histogram, marks: Sequence[Mark] = ()) -> Markup:
    """Return bars of kept rows with dropped rows stacked on top, and a line at each mark inside the range."""
    canvas, edges = _Canvas(_SMALL), histogram.edges
    x = canvas.linear_x(edges[0], edges[-1])
    y = canvas.count_y(float((histogram.kept + histogram.dropped).max()))
    canvas.grid(y)
    canvas.x_labels(x)
    for number, (kept, dropped) in enumerate(zip(histogram.kept, histogram.dropped, strict=True)):
        left, right = x(edges[number]) + _BAR_GAP / 2, x(edges[number + 1]) - _BAR_GAP / 2
        for kind, bottom, top in (("kept", 0, kept), ("dropped", kept, kept + dropped)):
            if top > bottom:
                canvas.bar(kind, left, right, y(float(bottom)), y(float(top)))
    for mark in marks:
        if edges[0] <= mark.value <= edges[-1]:
            at = x(mark.value)
            canvas.line("mark", at, at, _TOP - 3, canvas.floor)
            canvas.centred_text(at, _TOP - 6, mark.label, _LEFT, canvas.right, "mark-label")
    return canvas.svg(f"{histogram.name}: {short(histogram.least)} to {short(histogram.greatest)}")


def draw_rate(samples: Sequence[Sample], unit: str) -> Markup:
    """Return items a second (or minute, or hour, whichever suits the mean) over time; the mean is a dashed line."""
    mean = samples[-1].done / samples[-1].seconds
    time, size = rate_unit(mean)
    seconds, rates = rates_over_time(samples)
    mean, rates = mean * size, [rate * size for rate in rates]
    divisor, time_unit = _time_unit(seconds[-1])
    canvas = _Canvas(_WIDE)
    x, y = canvas.linear_x(0, seconds[-1] / divisor), canvas.count_y(max(rates))
    canvas.grid(y)
    canvas.x_labels(x, time_unit)
    steps = [(x(0), y(rates[0]))]
    for number, rate in enumerate(rates):
        steps += [(x(seconds[at] / divisor), y(rate)) for at in (number, number + 1)]
    canvas.shape("polygon", "area", [(_LEFT, canvas.floor), *steps, (canvas.right, canvas.floor)])
    canvas.shape("polyline", "line", steps)
    canvas.line("mean", _LEFT, canvas.right, y(mean), y(mean))
    return canvas.svg(f"{unit} {per(time)}, {short(mean)} on average")


def draw_progress(samples: Sequence[Sample], unit: str) -> Markup:
    """Return the number of finished items over time as stacked areas: ok below, filtered and failed on top."""
    end = samples[-1]
    divisor, time_unit = _time_unit(end.seconds)
    canvas = _Canvas(_WIDE)
    x, y = canvas.linear_x(0, end.seconds / divisor), canvas.count_y(end.done)
    canvas.grid(y)
    canvas.x_labels(x, time_unit)
    times = [x(sample.seconds / divisor) for sample in samples]
    floor = [0] * len(samples)
    for status in ("ok", "filtered", "failed"):
        ceiling = [low + getattr(sample, status) for low, sample in zip(floor, samples, strict=True)]
        if ceiling[-1] > floor[-1]:
            over, under = (list(zip(times, map(y, values), strict=True)) for values in (ceiling, floor))
            canvas.shape("polygon", status, [*over, *reversed(under)])
        floor = ceiling
    return canvas.svg(f"{unit} finished, {end.done} in total")


def draw_loss(name: str, steps: Sequence[int], losses: Sequence[float], final: float) -> Markup:
    """Return the loss over training steps with its running median, on a logarithmic axis.

    Args:
        name: what was trained.
        steps: ascending, at least two.
        losses: finite, one a step.
        final: loss at the end, for the label.
    """
    values = np.maximum(np.asarray(losses, float), 1e-8)
    median = _running_median(values, max(1, len(values) // 20))
    canvas = _Canvas(_SMALL)
    x, y = canvas.linear_x(steps[0], steps[-1]), canvas.log_y(values.min(), values.max())
    canvas.grid(y, at_most=5)
    for step, anchor in ((steps[0], "start"), (steps[-1], "end")):
        canvas.text(x(step), canvas.height - 8, f"{step}", anchor)
    canvas.text((_LEFT + canvas.right) / 2, canvas.height - 8, "step", "middle")
    for kind, series in (("raw", values), ("line", median)):
        canvas.shape("polyline", kind, [(x(step), y(value)) for step, value in zip(steps, series, strict=True)])
    canvas.dot("end", x(steps[-1]), y(median[-1]))
    return canvas.svg(f"Loss of {name} over {len(steps)} points, ending at {final:.4g}")


def rates_over_time(samples: Sequence[Sample]) -> tuple[list[float], list[float]]:
    """Return at most about 80 moments in seconds, and the items a second between each and the next (one fewer)."""
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


def _running_median(values: np.ndarray, reach: int) -> np.ndarray:
    return np.array([np.median(values[max(0, at - reach) : at + reach + 1]) for at in range(len(values))])
