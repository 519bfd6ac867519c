"""How the numbers of a column are spread, found in two passes of flat memory: first the range, then the bins."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

NUM_BINS = 40
_SAMPLE = 50_000
"""Values that quantiles are taken of; of a table of fewer rows that is all of them."""
_TAIL = 0.005
"""Share of the values at each end that may lie outside the bins, if they would squeeze all others together."""
_STEPS = (1, 2, 2.5, 5, 10)


class Spread:
    """The first pass over a column: its range, and a sample from which its quantiles are told.

    Args:
        num_rows: of the table.
    """

    def __init__(self, num_rows: int) -> None:
        self._stride = max(1, math.ceil(num_rows / _SAMPLE))
        self._sample: list[np.ndarray] = []
        self.count, self.missing = 0, 0
        self.least, self.greatest = math.inf, -math.inf

    def add(self, start: int, values: np.ndarray, known: np.ndarray) -> None:
        """Take in a batch whose first row is number `start` of the table.

        Args:
            start: rows before this batch.
            values: float64, those of the rows that have one.
            known: bool, for each row whether it has one.
        """
        self.count += len(values)
        self.missing += len(known) - len(values)
        if len(values):
            self.least = min(self.least, float(values.min()))
            self.greatest = max(self.greatest, float(values.max()))
            numbers = start + np.flatnonzero(known)
            self._sample.append(values[numbers % self._stride == 0])

    @property
    def varies(self) -> bool:
        """Whether there are two different values."""
        return self.count > 0 and self.greatest > self.least

    def quantiles(self, *shares: float) -> list[float]:
        """Return quantiles of the values; exact in a table of up to 50,000 rows."""
        sample = np.concatenate(self._sample) if self._sample else np.zeros(0)
        return [float(value) for value in np.quantile(sample if len(sample) else [self.least], shares)]


@dataclass
class Histogram:
    """How many rows have a value in each of some bins, kept and dropped ones apart."""

    name: str
    edges: list[float]
    """Of the bins, rising, at round numbers. What lies outside counts into the outermost bins."""
    kept: np.ndarray
    """int64 (bins,)."""
    dropped: np.ndarray
    least: float
    median: float
    greatest: float
    missing: int
    """Rows without a (finite) value."""

    @classmethod
    def of(cls, name: str, spread: Spread) -> Self:
        """Return an empty histogram whose bins suit the values."""
        low, median, high = spread.quantiles(_TAIL, 0.5, 1 - _TAIL)
        inner = high - low
        # Tails stay inside unless they would take most of the room.
        if inner > 0:
            low = spread.least if low - spread.least <= inner else low
            high = spread.greatest if spread.greatest - high <= inner else high
        else:
            low, high = spread.least, spread.greatest
        edges = _round_edges(low, high)
        bins = np.zeros(len(edges) - 1, np.int64)
        return cls(name, edges, bins, bins.copy(), spread.least, median, spread.greatest, spread.missing)

    def add(self, values: np.ndarray, is_kept: np.ndarray) -> None:
        """Count finite values, float64; `is_kept` says for each whether its row is."""
        places = np.searchsorted(self.edges, values, side="right") - 1
        places = places.clip(0, len(self.kept) - 1)
        self.kept += np.bincount(places[is_kept], minlength=len(self.kept))
        self.dropped += np.bincount(places[~is_kept], minlength=len(self.kept))


def round_step(span: float, parts: int) -> float:
    """Return a round number that goes into `span` about `parts` times, and not more often than that."""
    raw = span / parts
    power = 10.0 ** math.floor(math.log10(raw))
    return next((step * power for step in _STEPS if step * power >= raw * (1 - 1e-9)), 10 * power)


def _round_edges(low: float, high: float) -> list[float]:
    step = round_step(high - low, NUM_BINS)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return [round(number * step, 12) for number in range(first, last + 1)]
