"""Loss curves as small inline SVG drawings, coloured by the page's style sheet."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from videogen import storage

_WIDTH, _HEIGHT = 320, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 10, 24


@dataclass(frozen=True)
class Curve:
    """One training run as it reported itself."""

    stage: str
    steps: Sequence[int]
    losses: Sequence[float]
    samples_per_s: float
    seconds: float

    @property
    def final(self) -> float:
        """The loss at the end, the median of the last tenth."""
        return float(np.median(self.losses[-max(1, len(self.losses) // 10) :]))


def read_curve(folder: str, stage: str) -> Curve | None:
    """Read `<folder>/<stage>/metrics.jsonl`, one JSON object a line; None if there is nothing to draw."""
    uri = storage.join(folder, stage, "metrics.jsonl")
    if not storage.exists(uri):
        return None
    # A resumed run repeats the steps since its last checkpoint; the later line counts.
    lines = {line["step"]: line for line in map(json.loads, storage.read_text(uri).splitlines()) if "loss" in line}
    lines = {step: line for step, line in sorted(lines.items()) if math.isfinite(line["loss"])}
    if len(lines) < 2:
        return None
    rates = [line["samples_per_s"] for line in lines.values()]
    samples = np.diff([0, *(line["samples"] for line in lines.values())])
    seconds = float(np.sum(samples / np.maximum(rates, 1e-9)))
    return Curve(stage, list(lines), [line["loss"] for line in lines.values()], float(np.median(rates)), seconds)


def draw(curve: Curve) -> Markup:
    """Return an SVG element: the loss, its running median, a logarithmic axis."""
    steps, losses = np.asarray(curve.steps, float), np.maximum(np.asarray(curve.losses, float), 1e-8)
    smooth = _running_median(losses, max(1, len(losses) // 20))
    low, high = math.log10(losses.min()), math.log10(losses.max())
    pad = max(0.05, 0.08 * (high - low))
    low, high = low - pad, high + pad

    def x(step: float) -> float:
        return _LEFT + (step - steps[0]) / max(steps[-1] - steps[0], 1) * (_WIDTH - _LEFT - _RIGHT)

    def y(loss: float) -> float:
        return _TOP + (high - math.log10(loss)) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = []
    for tick in _ticks(low, high):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(tick) + 3:.1f}" text-anchor="end">{tick:g}</text>')
    for step, anchor in ((steps[0], "start"), (steps[-1], "end")):
        parts.append(f'<text x="{x(step):.1f}" y="{_HEIGHT - 7}" text-anchor="{anchor}">{step:.0f}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 7}" text-anchor="middle">step</text>')
    for name, values in (("raw", losses), ("line", smooth)):
        points = " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, loss in zip(steps, values, strict=True))
        parts.append(f'<polyline class="{name}" points="{points}"/>')
    parts.append(f'<circle class="end" cx="{x(steps[-1]):.1f}" cy="{y(smooth[-1]):.1f}" r="3"/>')
    label = f"Loss of {curve.stage} over {len(steps)} points, ending at {curve.final:.4g}"
    # All parts are numbers and our own words; the stage's name is escaped.
    svg = '<svg class="curve" viewBox="0 0 {} {}" role="img" aria-label="{}">'
    return Markup(svg).format(_WIDTH, _HEIGHT, label) + Markup("".join(parts) + "</svg>")  # noqa: S704


def _running_median(values: np.ndarray, reach: int) -> np.ndarray:
    return np.array([np.median(values[max(0, i - reach) : i + reach + 1]) for i in range(len(values))])


def _ticks(low: float, high: float) -> list[float]:
    """Return two to five round numbers between 10**low and 10**high."""
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8), tuple(np.arange(1, 10, 0.25))):
        decades = range(math.floor(low), math.ceil(high) + 1)
        ticks = [digit * 10.0**decade for decade in decades for digit in digits]
        ticks = [tick for tick in ticks if low <= math.log10(tick) <= high]
        if len(ticks) >= 2:
            return ticks[:: math.ceil(len(ticks) / 5)]
    return [10 ** ((low + high) / 2)]
