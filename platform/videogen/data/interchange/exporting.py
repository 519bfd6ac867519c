"""What every export shares: which rows of a table, and in which form."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from videogen.data.datasets.dataset import Row
from videogen.data.datasets.finished import FinishedTable
from videogen.data.tables.query import both
from videogen.errors import UserError

ARRAY_FORMS = ("npy", "safetensors")

_KEPT = "dropped_by = ''"
"""Clips tables also hold the rows that a policy has dropped."""


@dataclass(frozen=True)
class ExportOptions:
    """Which rows, and how they are written."""

    where: str | None = None
    """SQL expression over the index."""
    with_dropped: bool = False
    """Whether clips that the table's policy has dropped are exported too."""
    with_videos: bool = False
    """Whether the source videos go along: whole files, each once, as a set of their own."""
    arrays: str = "npy"
    """One of `ARRAY_FORMS`; for WebDataset only."""
    shard_bytes: int = 1 << 30
    """Bytes that a file aims at."""

    def __post_init__(self) -> None:
        if self.arrays not in ARRAY_FORMS:
            raise UserError(f"Arrays as {self.arrays!r} are not known: choose {' or '.join(ARRAY_FORMS)}.")
        if self.shard_bytes < 1:
            raise UserError(f"Files of {self.shard_bytes} bytes cannot be: give a positive number.")

    def expression(self, columns: Sequence[str]) -> str | None:
        """Return the whole choice as one SQL expression over an index with these columns."""
        parts = [self.where] if self.where else []
        if "dropped_by" in columns and not self.with_dropped:
            parts.append(_KEPT)
        return both(*parts) if parts else None

    def nothing_chosen(self, table: FinishedTable) -> UserError:
        """Return what to raise if there is nothing to export."""
        choice = f" for which {self.where!r} holds" if self.where else ""
        return UserError(f"Table {table.uri!r} has no row to export{choice}: choose less strictly, or see its errors.")


def kept(table: FinishedTable, options: ExportOptions) -> Iterator[Row]:
    """Yield the rows that are exported, whole."""
    yield from table.rows(options.expression(table.index_schema.names))


def json_value(value: Any) -> Any:
    """Return a value of a row as JSON has it: what is not finite is null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [json_value(item) for item in value]
    return value
