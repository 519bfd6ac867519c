"""Table survey: groups by policy rule, value counts, histograms and evenly spaced samples, in two passes of the index.

Only the needed columns are read, batch by batch, so memory is constant for any number of rows.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from videogen.data.tables import PublishedTable
from videogen.reporting.column_statistics import (
    NOT_MEASURED,
    ColumnStatistics,
    Histogram,
    finite_values,
    numeric_columns,
)
from videogen.reporting.contact_sheet import Place, evenly_spaced

DROPPED_BY = "dropped_by"
"""Column of the policy rule that drops a row, "" for a kept row."""
_CATEGORIES = ("container", "codec", "pixel_format", "color_range", "decoder", "caption_source")
_DISCRETE = ("rotation", "sample_aspect_ratio", "variable_fps", "has_audio")
_NO_HISTOGRAM = (*NOT_MEASURED, "shot", "start_s", "end_s", *_DISCRETE)
_MAX_VALUES = 1000
"""Distinct values of a column that are counted; the rest is counted as one."""


@dataclass
class Survey:
    """Result of both passes."""

    num_rows: int = 0
    groups: dict[str, int] = field(default_factory=dict)
    """Rows by the rule that drops them, "" for kept rows; all are "" in a table without a policy."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of video by the same groups."""
    values: dict[str, Counter[str]] = field(default_factory=dict)
    """Rows by value, of each categorical column."""
    histograms: list[Histogram] = field(default_factory=list)
    """Of every numeric column with more than one value."""
    constants: dict[str, float] = field(default_factory=dict)
    """Numeric columns with the same value in all rows."""
    sampled: dict[str, list[Place]] = field(default_factory=dict)
    """Evenly spaced rows of each group, in table order."""

    @property
    def kept(self) -> int:
        """Rows that no rule drops."""
        return self.groups.get("", 0)


def survey(table: PublishedTable, rules: Sequence[str], num_kept: int, num_dropped: int) -> Survey:
    """Read the index twice and return the survey.

    Args:
        table: a finished table.
        rules: names of the policy's rules.
        num_kept: maximum number of kept rows to sample.
        num_dropped: maximum number of rows to sample of those that each rule drops.
    """
    names = table.index_schema.names
    measured = numeric_columns(table.index_schema, exclude=_NO_HISTOGRAM)
    categories = [name for name in (*_CATEGORIES, *_DISCRETE) if name in names]
    found = Survey(values={name: Counter() for name in categories})
    total = int(table.manifest["counts"]["rows"])
    statistics = {name: ColumnStatistics(total) for name in measured}
    extra = [name for name in (DROPPED_BY, "start_s", "end_s") if name in names]
    for batch in table.batches([*measured, *categories, *extra]):
        _count_groups(found, batch)
        _count_categories(found, batch, categories)
        for name, column in statistics.items():
            column.add(found.num_rows, *finite_values(batch, name))
        found.num_rows += len(batch)
    histograms = {name: Histogram.of(name, column) for name, column in statistics.items() if column.varies}
    found.constants = {
        name: column.least for name, column in statistics.items() if column.num_values and not column.varies
    }
    positions = {"": evenly_spaced(found.kept, num_kept)}
    positions |= {rule: evenly_spaced(found.groups.get(rule, 0), num_dropped) for rule in rules}
    has_policy = DROPPED_BY in names
    columns = [*histograms, "shard", "row", *([DROPPED_BY] if has_policy else [])]
    found.sampled = _fill_histograms_and_sample(table.batches(columns), histograms, positions)
    found.histograms = list(histograms.values())
    return found


def _fill_histograms_and_sample(
    batches: Iterable[pa.RecordBatch], histograms: Mapping[str, Histogram], positions: Mapping[str, np.ndarray]
) -> dict[str, list[Place]]:
    """Count into the bins, and return the places of the rows at `positions` of each group."""
    num_seen: Counter[str] = Counter()
    sampled: dict[str, list[Place]] = {group: [] for group in positions}
    for batch in batches:
        groups = _groups(batch)
        is_kept = np.asarray(pc.equal(groups, ""))
        for name, histogram in histograms.items():
            values, is_known = finite_values(batch, name)
            histogram.add(values, is_kept[is_known])
        for group, wanted in positions.items():
            rows = np.flatnonzero(np.asarray(pc.equal(groups, group)))
            start = num_seen[group]
            here = wanted[(wanted >= start) & (wanted < start + len(rows))] - start
            num_seen[group] += len(rows)
            sampled[group] += [(batch["shard"][row].as_py(), batch["row"][row].as_py()) for row in rows[here]]
    return sampled


def _groups(batch: pa.RecordBatch) -> pa.Array:
    if DROPPED_BY in batch.schema.names:
        return batch[DROPPED_BY]
    return pa.array([""] * len(batch), pa.string())


def _count_groups(found: Survey, batch: pa.RecordBatch) -> None:
    groups = _groups(batch)
    lengths = None
    if {"start_s", "end_s"} <= set(batch.schema.names):
        lengths = batch["end_s"].to_numpy() - batch["start_s"].to_numpy()
    for name, count in value_counts(groups).items():
        found.groups[name] = found.groups.get(name, 0) + count
        if lengths is not None:
            seconds = float(lengths[np.asarray(pc.equal(groups, name))].sum())
            found.seconds[name] = found.seconds.get(name, 0.0) + seconds


def _count_categories(found: Survey, batch: pa.RecordBatch, names: Sequence[str]) -> None:
    for name in names:
        counter = found.values[name]
        for value, count in value_counts(batch[name]).items():
            label = _label(value)
            counter[label if label in counter or len(counter) < _MAX_VALUES else "(others)"] += count


def value_counts(column: pa.Array) -> Counter[str]:
    """Return the number of rows of each value."""
    return Counter({item["values"]: item["counts"] for item in column.value_counts().to_pylist()})


def _label(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not given" if value is None or value == "" else str(value)
