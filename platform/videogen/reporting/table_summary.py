"""A look at a finished table: what is in it, how its numbers are spread, what failed and why, and single rows.

Only the index and the errors are read, one column at a time, so a table of ten million rows is summed up in seconds.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from videogen import storage
from videogen.data.datasets.dataset import Row
from videogen.data.datasets.finished import FinishedTable
from videogen.data.tables.files import ERRORS_NAME
from videogen.errors import UserError
from videogen.reporting.reasons import Reason, read_reasons

if TYPE_CHECKING:
    from rich.console import RenderableType

_QUANTILES = (0, 5, 50, 95, 100)
_NO_NUMBERS = ("shard", "row", "perceptual_hash")
_MAX_REASONS = 12
_MAX_TEXT = 400


class Spread(NamedTuple):
    """How the values of a column are spread."""

    name: str
    quantiles: tuple[float, ...]
    """Least, 5 %, median, 95 %, greatest."""
    mean: float
    num_values: int
    num_missing: int


@dataclass(frozen=True)
class Summary:
    """What there is to say about a table."""

    uri: str
    kind: str
    schema_version: Any
    counts: dict[str, int]
    """planned, ok, filtered, failed (items) and rows."""
    num_chosen: int
    """Rows for which the expression holds."""
    num_shards: int
    num_bytes: int
    columns: list[tuple[str, str, str]]
    """Name, type, and where it lies: "index", "shard" or both."""
    spreads: list[Spread]
    dropped: dict[str, int]
    """Rows by the rule of the policy that drops them; "" for those that are kept. Empty without a policy."""
    reasons: list[Reason]


def summarise(table: FinishedTable, where: str | None = None) -> Summary:
    """Return a summary of a table, its numbers over the rows for which the SQL expression `where` holds.

    Raises:
        UserError: `where` is no expression over the index's columns.
    """
    manifest = table.manifest
    num_chosen = table.count(where)
    return Summary(
        uri=table.uri,
        kind=table.kind,
        schema_version=manifest.get("schema_version"),
        counts=dict(manifest["counts"]),
        num_chosen=num_chosen,
        num_shards=len(table.shards),
        num_bytes=sum(shard.num_bytes for shard in table.shards),
        columns=_columns(table),
        spreads=_spreads(table, where) if num_chosen else [],
        dropped=_dropped(table, where),
        reasons=read_reasons(storage.join(table.uri, ERRORS_NAME))[:_MAX_REASONS],
    )


def _columns(table: FinishedTable) -> list[tuple[str, str, str]]:
    in_index, in_shard = table.index_schema, table.shard_schema
    fields = {field.name: str(field.type) for schema in (in_index, in_shard) for field in schema}
    places = (("index", in_index.names), ("shard", in_shard.names))
    return [(name, kind, ", ".join(p for p, names in places if name in names)) for name, kind in fields.items()]


def _spreads(table: FinishedTable, where: str | None) -> list[Spread]:
    import pyarrow as pa

    spreads = []
    for field in table.index_schema:
        is_number = pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
        if not is_number or field.name in _NO_NUMBERS:
            continue
        batches = [batch[field.name] for batch in table.index([field.name], where)]
        values = np.concatenate([np.asarray(part.drop_null()) for part in batches])
        num_missing = sum(part.null_count for part in batches)
        if pa.types.is_floating(field.type):
            finite = values[np.isfinite(values)]
            num_missing += len(values) - len(finite)
            values = finite
        if len(values):
            quantiles = tuple(float(value) for value in np.percentile(values, _QUANTILES))
            spreads.append(Spread(field.name, quantiles, float(values.mean(dtype=float)), len(values), num_missing))
    return spreads


def _dropped(table: FinishedTable, where: str | None) -> dict[str, int]:
    if "dropped_by" not in table.index_schema.names:
        return {}
    counter: Counter[str] = Counter()
    for batch in table.index(["dropped_by"], where):
        for item in batch["dropped_by"].value_counts().to_pylist():
            counter[item["values"]] += item["counts"]
    return dict(counter.most_common()) if set(counter) - {""} else {}


def read_row(table: FinishedTable, position: int, where: str | None = None) -> Row:
    """Return one whole row; `position` counts the rows for which `where` holds, from 0.

    Raises:
        UserError: there is no such row.
    """
    rows = table.rows_at([position], where) if position >= 0 else []
    if not rows:
        num_rows = table.count(where)
        raise UserError(
            f"Row {position} is asked of {num_rows} rows: give a number from 0 to {num_rows - 1}."
            if num_rows
            else f"Row {position} is asked, but there is no row{f' for which {where!r} holds' if where else ''}."
        )
    return rows[0]


# --- for people --------------------------------------------------------------------------------------------------


def render_summary(summary: Summary) -> "RenderableType":
    """Return a summary for a terminal."""
    from rich.console import Group

    counts = summary.counts
    parts = [
        f"{summary.kind} (schema {summary.schema_version}) in {summary.uri}",
        f"items: {', '.join(f'{number} {name}' for name, number in counts.items() if name != 'rows')}",
        f"rows: {counts.get('rows', 0)}, {summary.num_chosen} chosen",
        f"data: {summary.num_shards} shards, {in_bytes(summary.num_bytes)}",
    ]
    texts = [_plain(part) for part in parts]
    tables = [_grid("columns", ("name", "type", "in"), summary.columns)]
    if summary.spreads:
        names = ("name", "least", "5 %", "median", "95 %", "greatest", "mean", "missing")
        rows = [(s.name, *map(_number, (*s.quantiles, s.mean)), str(s.num_missing)) for s in summary.spreads]
        tables.append(_grid("numbers", names, rows))
    if summary.dropped:
        kept = [(name or "(kept)", str(count)) for name, count in summary.dropped.items()]
        tables.append(_grid("policy", ("rule that drops", "rows"), kept))
    if summary.reasons:
        failed = [(str(r.num_inputs), r.stage, r.error, r.example) for r in summary.reasons]
        tables.append(_grid("failures", ("inputs", "stage", "error", "for example"), failed))
    return Group(*texts, *tables)


def render_row(row: Row) -> "RenderableType":
    """Return a row in full for a terminal; arrays and pictures are described."""
    return _grid("row", ("column", "value"), [(name, describe(value)) for name, value in row.items()])


def describe(value: Any) -> str:
    """Return a value in words."""
    if isinstance(value, np.ndarray):
        numbers = value.astype(np.float64)
        inside = f", {numbers.min():.3g} to {numbers.max():.3g}, mean {numbers.mean():.3g}" if value.size else ""
        return f"{value.dtype} {value.shape}{inside}"
    if isinstance(value, bytes):
        return f"{'JPEG, ' if value.startswith(bytes.fromhex('ffd8ff')) else ''}{in_bytes(len(value))}"
    text = str(value)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}... ({len(text)} characters)"


def in_bytes(number: float) -> str:
    """Return a number of bytes as people say it."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}" if unit != "bytes" else f"{number:.0f} bytes"
        number /= 1000
    return f"{number:.3g} TB"


def _number(value: float) -> str:
    return f"{value:.4g}"


def _plain(text: str) -> "RenderableType":
    from rich.text import Text

    # As text, so that nothing in a name or caption is taken for markup.
    return Text(text)


def _grid(title: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> "RenderableType":
    from rich.table import Table

    grid = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for name in names:
        grid.add_column(name, overflow="fold")
    for row in rows:
        grid.add_row(*(_plain(cell) for cell in row))
    return grid
