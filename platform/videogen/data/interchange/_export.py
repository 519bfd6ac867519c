"""Shared parts of every export: its options, the rows that it takes, and the folder that it writes."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from videogen import storage
from videogen.data.tables import PublishedTable, Row, conjunction
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
        return conjunction(*parts) if parts else None

    def nothing_chosen(self, table: PublishedTable) -> UserError:
        """Return what to raise if there is nothing to export."""
        choice = f" for which {self.where!r} holds" if self.where else ""
        return UserError(f"Table {table.uri!r} has no row to export{choice}: choose less strictly, or see its errors.")


def kept(table: PublishedTable, options: ExportOptions) -> Iterator[Row]:
    """Yield the rows that are exported, whole."""
    yield from table.rows(options.expression(table.index_schema.names))


def json_value(value: Any) -> Any:
    """Return a value of a row as JSON has it: what is not finite is null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [json_value(item) for item in value]
    return value


RECORD_NAME = ".videogen-export.json"
"""Names the files of the export that lies beside it."""

_PARTIAL = re.compile(r"(.*/)\.([^/]+)\.[0-9a-f]{32}\.partial")
"""What a process that was killed leaves of a file that it was writing, on a local disk."""


class ExportFolder:
    """A folder that holds nothing but one export.

    Args:
        output: the folder; an earlier export in it is removed, and nothing else ever is.
        described: names of the files that readers look at first; of an earlier export they go first.

    Raises:
        UserError: it holds files that no export has written, or cannot be written.
    """

    def __init__(self, output: str, described: Sequence[str]) -> None:
        storage.require_writable(output, "Output")
        self.uri = output
        self._names: list[str] = []
        earlier = self._recorded()
        ours = {storage.join(output, name) for name in (RECORD_NAME, *earlier)}
        found = storage.list_files(output)
        foreign = [uri for uri in found if uri not in ours and _PARTIAL.sub(r"\1\2", uri) not in ours]
        if foreign:
            raise UserError(
                f"Output {output!r} holds {foreign[0]!r}, which no export has written: give an empty folder."
            )
        first = [storage.join(output, name) for name in described]
        # The record goes last: while any file is there, it is named.
        record = storage.join(output, RECORD_NAME)
        for uri in sorted(set(found) - {record}, key=lambda uri: (uri not in first, uri)):
            storage.remove(uri)
        self._write_record()

    def add(self, name: str) -> str:
        """Return the URI of a file that is about to be written."""
        self._names.append(name)
        self._write_record()
        return storage.join(self.uri, name)

    def _recorded(self) -> list[str]:
        """Return the names that an earlier export may have written."""
        record = storage.join(self.uri, RECORD_NAME)
        if not storage.exists(record):
            return []
        content = storage.read_json(record)
        names = content.get("files") if isinstance(content, dict) else None
        # Without a list nothing is known to be ours.
        return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []

    def _write_record(self) -> None:
        record = {"written_by": "jobs/export_table.py", "files": self._names}
        storage.write_json(storage.join(self.uri, RECORD_NAME), record)
