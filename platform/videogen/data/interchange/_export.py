"""Export options, row selection and the output folder, shared by all export formats."""

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
    """Row selection and format of an export."""

    where: str | None = None
    """SQL expression over the index."""
    with_dropped: bool = False
    """Whether to export clips that the table's policy dropped."""
    with_videos: bool = False
    """Whether to export the source videos as a set of their own: whole files, each once."""
    arrays: str = "npy"
    """One of `ARRAY_FORMS`; only for WebDataset."""
    shard_bytes: int = 1 << 30
    """Target size of a file in bytes."""

    def __post_init__(self) -> None:
        if self.arrays not in ARRAY_FORMS:
            raise UserError(f"Array format {self.arrays!r} does not exist: choose {' or '.join(ARRAY_FORMS)}.")
        if self.shard_bytes < 1:
            raise UserError(f"A file size of {self.shard_bytes} bytes is not possible: give a positive number.")

    def expression(self, columns: Sequence[str]) -> str | None:
        """Return the row selection as one SQL expression over an index with these columns."""
        parts = [self.where] if self.where else []
        if "dropped_by" in columns and not self.with_dropped:
            parts.append(_KEPT)
        return conjunction(*parts) if parts else None

    def nothing_chosen(self, table: PublishedTable) -> UserError:
        """Return the error for an empty selection."""
        choice = f" for which {self.where!r} holds" if self.where else ""
        return UserError(f"Table {table.uri!r} has no row to export{choice}: choose less strictly, or see its errors.")


def kept(table: PublishedTable, options: ExportOptions) -> Iterator[Row]:
    """Yield all columns of the exported rows."""
    yield from table.rows(options.expression(table.index_schema.names))


def json_value(value: Any) -> Any:
    """Return a value of a row for JSON; numbers that are not finite become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [json_value(item) for item in value]
    return value


RECORD_NAME = ".videogen-export.json"
"""File that lists the files of the export beside it."""

_PARTIAL = re.compile(r"(.*/)\.([^/]+)\.[0-9a-f]{32}\.partial")
"""Temporary file of an interrupted write on a local disk."""


class ExportFolder:
    """A folder with one export. A record in it lists every file before the file is written.

    Args:
        output: the folder; files of an earlier export are removed, and no others.
        described: names of the entry-point files; when an earlier export is removed, they are removed first.

    Raises:
        UserError: it contains files that no export wrote, or is not writable.
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
            raise UserError(f"Output {output!r} holds {foreign[0]!r}, which no export wrote: give an empty folder.")
        first = [storage.join(output, name) for name in described]
        # The record is removed last, so that every existing file is listed.
        record = storage.join(output, RECORD_NAME)
        for uri in sorted(set(found) - {record}, key=lambda uri: (uri not in first, uri)):
            storage.remove(uri)
        self._write_record()

    def add(self, name: str) -> str:
        """Record a file that is about to be written and return its URI."""
        self._names.append(name)
        self._write_record()
        return storage.join(self.uri, name)

    def _recorded(self) -> list[str]:
        """Return the file names of an earlier export, complete or not."""
        record = storage.join(self.uri, RECORD_NAME)
        if not storage.exists(record):
            return []
        content = storage.read_json(record)
        names = content.get("files") if isinstance(content, dict) else None
        # Without a list, no file is known to belong to an export.
        return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []

    def _write_record(self) -> None:
        record = {"written_by": "jobs/export_table.py", "files": self._names}
        storage.write_json(storage.join(self.uri, RECORD_NAME), record)
