"""Two passes over a table's index: what is in it, how its numbers are spread, and which rows stand for the rest.

Only the columns that are asked for are read, batch by batch, so memory is flat for any number of rows.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from videogen.data.datasets.finished import FinishedTable
from videogen.reporting.table.histograms import Histogram, Spread

DROPPED_BY = "dropped_by"
_WORDS = ("container", "codec", "pixel_format", "color_range", "decoder", "caption_source")
_FACTS = ("rotation", "sample_aspect_ratio", "variable_fps", "has_audio")
_NO_QUANTITY = ("shard", "row", "perceptual_hash", "shot", "start_s", "end_s", *_FACTS)
_MAX_WORDS = 1000
"""Different values of a column that are counted one by one; no codec has so many names."""


@dataclass
class Survey:
    """What two passes have found."""

    num_rows: int = 0
    groups: dict[str, int] = field(default_factory=dict)
    """Rows by the rule that drops them, "" for those that are kept; all are "" in a table without a policy."""
    clip_s: dict[str, float] = field(default_factory=dict)
    """Seconds of video by the same."""
    words: dict[str, Counter[str]] = field(default_factory=dict)
    """Rows by value, of each column that says what the videos are."""
    histograms: list[Histogram] = field(default_factory=list)
    """Of every number that is not the same in all rows."""
    constants: dict[str, float] = field(default_factory=dict)
    """Numbers that are."""
    sampled: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """Shard and row in it of the rows that stand for a group, in the table's order."""

    @property
    def kept(self) -> int:
        """Rows that no rule drops."""
        return self.groups.get("", 0)


def survey(table: FinishedTable, rules: Sequence[str], num_kept: int, num_dropped: int) -> Survey:
    """Read the index twice.

    Args:
        table: a finished one.
        rules: names of the policy's rules.
        num_kept: rows to choose of those that are kept, at most.
        num_dropped: rows to choose of those that each rule drops, at most.
    """
    names = table.index_schema.names
    quantities = _quantities(table.index_schema)
    words = [name for name in (*_WORDS, *_FACTS) if name in names]
    found = Survey(words={name: Counter() for name in words})
    total = int(table.manifest["counts"]["rows"])
    spreads = {name: Spread(total) for name in quantities}
    has_policy = DROPPED_BY in names
    extra = [name for name in (DROPPED_BY, "start_s", "end_s") if name in names]
    for batch in table.index([*quantities, *words, *extra]):
        groups = _groups(batch, has_policy)
        _count_groups(found, batch, groups)
        _count_words(found, batch, words)
        for name, spread in spreads.items():
            spread.add(found.num_rows, *_numbers(batch, name))
        found.num_rows += len(batch)
    drawn = {name: Histogram.of(name, spread) for name, spread in spreads.items() if spread.varies}
    found.constants = {name: spread.least for name, spread in spreads.items() if spread.count and not spread.varies}
    wanted = {"": _evenly(found.kept, num_kept)}
    wanted |= {rule: _evenly(found.groups.get(rule, 0), num_dropped) for rule in rules}
    _second_pass(table, found, drawn, wanted, has_policy)
    found.histograms = list(drawn.values())
    return found


def _second_pass(
    table: FinishedTable,
    found: Survey,
    drawn: Mapping[str, Histogram],
    wanted: Mapping[str, np.ndarray],
    has_policy: bool,
) -> None:
    """Count into bins that are known now, and note where the sampled rows lie."""
    seen: Counter[str] = Counter()
    found.sampled = {group: [] for group in wanted}
    columns = [*drawn, "shard", "row", *([DROPPED_BY] if has_policy else [])]
    for batch in table.index(columns):
        groups = _groups(batch, has_policy)
        is_kept = np.asarray(pc.equal(groups, ""))
        for name, histogram in drawn.items():
            values, known = _numbers(batch, name)
            histogram.add(values, is_kept[known])
        for group, positions in wanted.items():
            rows = np.flatnonzero(np.asarray(pc.equal(groups, group)))
            here = positions[(positions >= seen[group]) & (positions < seen[group] + len(rows))] - seen[group]
            seen[group] += len(rows)
            found.sampled[group] += [(batch["shard"][row].as_py(), batch["row"][row].as_py()) for row in rows[here]]


def _quantities(schema: pa.Schema) -> list[str]:
    def is_number(kind: pa.DataType) -> bool:
        return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))

    return [item.name for item in schema if is_number(item.type) and item.name not in _NO_QUANTITY]


def _groups(batch: pa.RecordBatch, has_policy: bool) -> pa.Array:
    return batch[DROPPED_BY] if has_policy else pa.array([""] * len(batch), pa.string())


def _count_groups(found: Survey, batch: pa.RecordBatch, groups: pa.Array) -> None:
    lengths = None
    if {"start_s", "end_s"} <= set(batch.schema.names):
        lengths = batch["end_s"].to_numpy() - batch["start_s"].to_numpy()
    for item in groups.value_counts().to_pylist():
        name, count = item["values"], item["counts"]
        found.groups[name] = found.groups.get(name, 0) + count
        if lengths is not None:
            seconds = float(lengths[np.asarray(pc.equal(groups, name))].sum())
            found.clip_s[name] = found.clip_s.get(name, 0.0) + seconds


def _count_words(found: Survey, batch: pa.RecordBatch, words: Sequence[str]) -> None:
    for name in words:
        for item in batch[name].value_counts().to_pylist():
            said = _said(item["values"])
            counter = found.words[name]
            counter[said if said in counter or len(counter) < _MAX_WORDS else "(others)"] += item["counts"]


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not given" if value is None or value == "" else str(value)


def _numbers(batch: pa.RecordBatch, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the finite values of a column, float64, and for each row whether it has one."""
    values = np.asarray(pc.cast(batch[name], pa.float64()).fill_null(np.nan))
    known = np.isfinite(values)
    return values[known], known


def _evenly(total: int, at_most: int) -> np.ndarray:
    """Return `at_most` places of `total`, int64, spread evenly: the same rows give the same places."""
    shown = min(total, at_most)
    return np.arange(shown) * total // max(shown, 1)


def in_table_order(sampled: Mapping[str, Sequence[tuple[int, int]]]) -> Iterator[tuple[int, int]]:
    """Yield the places of all groups once."""
    yield from sorted({place for places in sampled.values() for place in places})
