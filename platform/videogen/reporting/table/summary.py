"""Table summary for a terminal: counts, columns, statistics, policy, failures, and single rows in full.

Only the index and the errors are read, one column at a time, so a table of ten million rows is summarised in seconds.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from videogen import storage
from videogen.data.tables import ERRORS_NAME, PublishedTable, Row
from videogen.errors import UserError
from videogen.reporting.column_statistics import ColumnStatistics, finite_values, numeric_columns
from videogen.reporting.formatting import in_bytes
from videogen.reporting.table.reasons import Reason, read_reasons
from videogen.reporting.table.survey import DROPPED_BY, value_counts

if TYPE_CHECKING:
    from rich.console import RenderableType

_QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)
_MAX_REASONS = 12
_MAX_CHARACTERS = 400


class ColumnSummary(NamedTuple):
    """Distribution of a numeric column."""

    name: str
    quantiles: tuple[float, ...]
    """Least, 5 %, median, 95 %, greatest."""
    mean: float
    num_values: int
    num_missing: int


@dataclass(frozen=True)
class TableSummary:
    """Content of a table in numbers."""

    uri: str
    kind: str
    schema_version: object
    counts: dict[str, int]
    """planned, ok, filtered, failed (items) and rows."""
    num_selected: int
    """Rows for which the expression holds."""
    num_shards: int
    num_bytes: int
    columns: list[tuple[str, str, str]]
    """Name, type, and location: "index", "shard" or both."""
    statistics: list[ColumnSummary]
    dropped: dict[str, int]
    """Rows by the policy rule that drops them; "" for kept rows. Empty without a policy."""
    reasons: list[Reason]


def summarise(table: PublishedTable, where: str | None = None) -> TableSummary:
    """Return a summary of a table; statistics cover the rows for which the SQL expression `where` holds.

    Raises:
        UserError: `where` is not an expression over the index's columns.
    """
    manifest = table.manifest
    num_selected = table.count(where)
    return TableSummary(
        uri=table.uri,
        kind=table.kind.name,
        schema_version=manifest.get("schema_version"),
        counts=dict(manifest["counts"]),
        num_selected=num_selected,
        num_shards=len(table.shards),
        num_bytes=sum(shard.num_bytes for shard in table.shards),
        columns=_columns(table),
        statistics=_statistics(table, where, num_selected) if num_selected else [],
        dropped=_dropped(table, where),
        reasons=read_reasons(storage.join(table.uri, ERRORS_NAME))[:_MAX_REASONS],
    )


def _columns(table: PublishedTable) -> list[tuple[str, str, str]]:
    in_index, in_shard = table.index_schema, table.shard_schema
    fields = {field.name: str(field.type) for schema in (in_index, in_shard) for field in schema}
    places = (("index", in_index.names), ("shard", in_shard.names))
    return [(name, kind, ", ".join(p for p, names in places if name in names)) for name, kind in fields.items()]


def _statistics(table: PublishedTable, where: str | None, num_rows: int) -> list[ColumnSummary]:
    found = []
    for name in numeric_columns(table.index_schema):
        statistics = ColumnStatistics(num_rows, sample_size=num_rows)
        start = 0
        for batch in table.batches([name], where):
            statistics.add(start, *finite_values(batch, name))
            start += len(batch)
        if statistics.num_values:
            quantiles = tuple(statistics.quantiles(*_QUANTILES))
            counts = (statistics.num_values, statistics.num_missing)
            found.append(ColumnSummary(name, quantiles, statistics.mean, *counts))
    return found


def _dropped(table: PublishedTable, where: str | None) -> dict[str, int]:
    if DROPPED_BY not in table.index_schema.names:
        return {}
    counter: Counter[str] = Counter()
    for batch in table.batches([DROPPED_BY], where):
        counter += value_counts(batch[DROPPED_BY])
    return dict(counter.most_common()) if set(counter) - {""} else {}


def read_row(table: PublishedTable, position: int, where: str | None = None) -> Row:
    """Return one whole row; `position` counts the rows for which `where` holds, from 0.

    Raises:
        UserError: there is no such row.
    """
    rows = table.rows_at([position], where) if position >= 0 else []
    if not rows:
        num_rows = table.count(where)
        raise UserError(
            f"Row {position} does not exist among {num_rows} rows: give a number from 0 to {num_rows - 1}."
            if num_rows
            else f"Row {position} does not exist: there is no row{f' for which {where!r} holds' if where else ''}."
        )
    return rows[0]


# --- rendering ---------------------------------------------------------------------------------------------------


def render_summary(summary: TableSummary) -> "RenderableType":
    """Return a summary for a terminal."""
    from rich.console import Group

    counts = summary.counts
    lines = [
        f"{summary.kind} (schema {summary.schema_version}) in {summary.uri}",
        f"items: {', '.join(f'{number} {name}' for name, number in counts.items() if name != 'rows')}",
        f"rows: {counts.get('rows', 0)}, {summary.num_selected} selected",
        f"data: {summary.num_shards} shards, {in_bytes(summary.num_bytes)}",
    ]
    texts = [_verbatim(line) for line in lines]
    tables = [_grid("columns", ("name", "type", "in"), summary.columns)]
    if summary.statistics:
        names = ("name", "least", "5 %", "median", "95 %", "greatest", "mean", "missing")
        rows = [
            (s.name, *(f"{value:.4g}" for value in (*s.quantiles, s.mean)), str(s.num_missing))
            for s in summary.statistics
        ]
        tables.append(_grid("numbers", names, rows))
    if summary.dropped:
        kept = [(name or "(kept)", str(count)) for name, count in summary.dropped.items()]
        tables.append(_grid("policy", ("dropped by rule", "rows"), kept))
    if summary.reasons:
        failed = [(str(r.num_inputs), r.stage, r.error, r.example) for r in summary.reasons]
        tables.append(_grid("failures", ("inputs", "stage", "error", "example"), failed))
    return Group(*texts, *tables)


def render_row(row: Row) -> "RenderableType":
    """Return a row in full for a terminal; arrays and pictures are described."""
    return _grid("row", ("column", "value"), [(name, describe(value)) for name, value in row.items()])


def describe(value: object) -> str:
    """Return a value as text; an array as its type, shape and range."""
    if isinstance(value, np.ndarray):
        numbers = value.astype(np.float64)
        inside = f", {numbers.min():.3g} to {numbers.max():.3g}, mean {numbers.mean():.3g}" if value.size else ""
        return f"{value.dtype} {value.shape}{inside}"
    if isinstance(value, bytes):
        return f"{'JPEG, ' if value.startswith(bytes.fromhex('ffd8ff')) else ''}{in_bytes(len(value))}"
    text = str(value)
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}... ({len(text)} characters)"


def _verbatim(text: str) -> "RenderableType":
    from rich.text import Text

    # A Text object: names and captions must not be parsed as markup.
    return Text(text)


def _grid(title: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> "RenderableType":
    from rich.table import Table

    grid = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for name in names:
        grid.add_column(name, overflow="fold")
    for row in rows:
        grid.add_row(*(_verbatim(cell) for cell in row))
    return grid
