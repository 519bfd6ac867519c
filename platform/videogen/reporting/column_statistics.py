"""Column statistics and histograms of a table, in two passes of constant memory: range and quantiles, then bins."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from videogen.reporting.formatting import round_step

if TYPE_CHECKING:
    import pyarrow as pa

NUM_BINS = 40
SAMPLE_SIZE = 50_000
"""Values that quantiles are computed from by default; a smaller table is used whole."""
_TAIL = 0.005
"""Share of the values at each end that may lie outside the bins, where they would compress all others."""
NOT_MEASURED = ("shard", "row", "perceptual_hash")
"""Numeric columns that are positions or hashes."""


def numeric_columns(schema: "pa.Schema", exclude: Collection[str] = NOT_MEASURED) -> list[str]:
    """Return the names of the numeric columns."""
    import pyarrow as pa

    def is_number(kind: "pa.DataType") -> bool:
        return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))

    return [field.name for field in schema if is_number(field.type) and field.name not in exclude]


def finite_values(batch: "pa.RecordBatch", name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the finite values of a column, float64, and a mask of the rows that have one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = np.asarray(pc.cast(batch[name], pa.float64(), safe=False).fill_null(np.nan))
    is_known = np.isfinite(values)
    return values[is_known], is_known


class ColumnStatistics:
    """Count, range, mean and quantiles of one column, updated batch by batch.

    Args:
        num_rows: rows of the table.
        sample_size: values to keep for the quantiles, evenly spaced over the table.
    """

    def __init__(self, num_rows: int, sample_size: int = SAMPLE_SIZE) -> None:
        self._stride = max(1, math.ceil(num_rows / sample_size))
        self._sample: list[np.ndarray] = []
        self._sum = 0.0
        self.num_values, self.num_missing = 0, 0
        self.least, self.greatest = math.inf, -math.inf

    def add(self, first_row: int, values: np.ndarray, is_known: np.ndarray) -> None:
        """Add a batch.

        Args:
            first_row: rows of the table before this batch.
            values: float64, of the rows that have one.
            is_known: bool, for each row whether it has one.
        """
        self.num_values += len(values)
        self.num_missing += len(is_known) - len(values)
        if len(values):
            self._sum += float(values.sum())
            self.least = min(self.least, float(values.min()))
            self.greatest = max(self.greatest, float(values.max()))
            rows = first_row + np.flatnonzero(is_known)
            self._sample.append(values[rows % self._stride == 0])

    @property
    def varies(self) -> bool:
        """Whether there are two different values."""
        return self.num_values > 0 and self.greatest > self.least

    @property
    def mean(self) -> float:
        """Mean of the values; NaN if there is none."""
        return self._sum / self.num_values if self.num_values else math.nan

    def quantiles(self, *shares: float) -> list[float]:
        """Return quantiles of the values; exact in a table of up to `sample_size` rows."""
        sample = np.concatenate(self._sample) if self._sample else np.zeros(0)
        return [float(value) for value in np.quantile(sample if len(sample) else [self.least], shares)]


@dataclass
class Histogram:
    """Number of rows in each bin of a column's values, kept and dropped rows apart."""

    name: str
    edges: list[float]
    """Bin edges: ascending round numbers. Values outside count into the outermost bins."""
    kept: np.ndarray
    """int64 (bins,)."""
    dropped: np.ndarray
    least: float
    median: float
    greatest: float
    missing: int
    """Rows without a finite value."""

    @classmethod
    def of(cls, name: str, statistics: ColumnStatistics) -> Self:
        """Return an empty histogram with bins that suit the values."""
        low, median, high = statistics.quantiles(_TAIL, 0.5, 1 - _TAIL)
        inner = high - low
        # Tails stay inside unless they would take most of the width.
        if inner > 0:
            low = statistics.least if low - statistics.least <= inner else low
            high = statistics.greatest if statistics.greatest - high <= inner else high
        else:
            low, high = statistics.least, statistics.greatest
        edges = _round_edges(low, high)
        bins = np.zeros(len(edges) - 1, np.int64)
        return cls(
            name, edges, bins, bins.copy(), statistics.least, median, statistics.greatest, statistics.num_missing
        )

    def add(self, values: np.ndarray, is_kept: np.ndarray) -> None:
        """Count finite values, float64; `is_kept` is a mask of those whose row is kept."""
        bins = np.searchsorted(self.edges, values, side="right") - 1
        bins = bins.clip(0, len(self.kept) - 1)
        self.kept += np.bincount(bins[is_kept], minlength=len(self.kept))
        self.dropped += np.bincount(bins[~is_kept], minlength=len(self.kept))


def _round_edges(low: float, high: float) -> list[float]:
    step = round_step(high - low, NUM_BINS)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return [round(number * step, 12) for number in range(first, last + 1)]
