"""What every export shares: which rows of a table, in which form, and where they may be written."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from videogen import storage
from videogen.data.dataset import Row
from videogen.data.finished import FinishedTable
from videogen.data.tables.query import both
from videogen.errors import UserError

ARRAY_FORMS = ("npy", "safetensors")

MARKER_NAME = ".videogen-export.json"
"""A folder that holds a file of this name was written by an export, and may be written by another."""

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
    """Whether every row carries its source video, the whole file as it is."""
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


def begin_export(output: str, data_suffix: str, others: Sequence[str]) -> None:
    """Make the folder `output` ready: an earlier export in it is removed, and nothing else ever is.

    Args:
        output: the folder.
        data_suffix: how the names of data files end.
        others: names of the other files of an export; readers look at them first, so they go first.

    Raises:
        UserError: it holds files that no export has written, or cannot be written.
    """
    storage.require_writable(output, "Output")
    marker = storage.join(output, MARKER_NAME)
    found = storage.list_files(output)
    described = [uri for uri in found if uri in [storage.join(output, name) for name in others]]
    data = [uri for uri in found if uri.endswith(data_suffix)]
    foreign = sorted(set(found) - {marker, *described, *data}) if marker in found else found
    if foreign:
        raise UserError(f"Output {output!r} holds {foreign[0]!r}, which no export has written: give an empty folder.")
    storage.write_json(marker, {"written_by": "jobs/export_table.py"})
    for uri in [*described, *data]:
        storage.remove(uri)


def source_bytes(uri: str) -> bytes:
    """Return a row's source video.

    Raises:
        UserError: it is not there any more.
    """
    try:
        return storage.read_bytes(uri)
    except OSError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"Source {uri!r} cannot be read ({reason}): export without the videos.") from error


def json_value(value: Any) -> Any:
    """Return a value of a row as JSON has it: what is not finite is null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [json_value(item) for item in value]
    return value
