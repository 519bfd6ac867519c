"""Tables that name videos, and captions by video: checked whole, each video once, sorted outside of memory."""

import os
import posixpath
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from videogen import storage
from videogen.cli import suggest
from videogen.data.sources._text_table import TextTable, listed, one_line, well_formed
from videogen.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

_COLUMNS = ("video", "caption", "version")
_MEANT = ("video", "caption")
"""What another spelling of must not be passed over: captions would be lost without a word."""
_ROWS_AT_ONCE = 65536
_SORT_MEMORY = "128MB"
"""What sorting may hold before it goes to disk."""


class VideoTable:
    """The videos that a table names.

    Args:
        uri: parquet, csv or jsonl with the columns `video` (a URI, or a path in `base`), and perhaps `caption` and
            `version` (any text that changes when the file does).
        base: folder that relative paths are relative to.
        what: names the table for the reader of an error, e.g. "Manifest".
        required: columns that it must have.

    Raises:
        UserError: a row of it cannot be understood; the whole table is read here.
    """

    def __init__(self, uri: str, base: str, what: str, required: Sequence[str] = ("video",)) -> None:
        self._table = TextTable(uri, what)
        self._base = base
        self._required = required
        self.num_rows = 0
        self.num_captions = 0
        """Rows with a caption."""
        self.example = ""
        """The first video, as the table names it."""
        if self._table.columns_are_known:
            self._check_columns()
        self._sorted = self._sort()
        self.num_videos = sum(len(batch) for batch in self.batches())

    @property
    def has_caption_column(self) -> bool:
        """Whether there is a column `caption`."""
        return "caption" in self._table.columns

    @property
    def unread_columns(self) -> list[str]:
        """Names of the columns that mean nothing here."""
        return [name for name in self._table.columns if name.strip() and name not in _COLUMNS]

    def batches(self, rows: int = _ROWS_AT_ONCE) -> "Iterator[pa.RecordBatch]":
        """Yield `path`, `uri`, `version`, `caption` (strings; the last two may be null) in the order of paths.

        `path` is relative to `base`, or the URI of a video that is not in there. Of rows that name the same video,
        the first one with a caption counts.
        """
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        last = None
        for batch in pq.ParquetFile(self._sorted).iter_batches(rows):
            paths = batch["path"]
            before = pa.concat_arrays([pa.array([last], pa.string()), paths.slice(0, len(paths) - 1)])
            last = paths[-1].as_py()
            first_ones = batch.filter(pc.fill_null(pc.not_equal(paths, before), True))
            if len(first_ones):
                yield first_ones

    def _check_columns(self) -> None:
        columns = self._table.columns
        for name in self._required:
            if name not in columns:
                there = listed(columns) or "none"
                raise UserError(
                    f"{self._table.name}: there is no column {name!r} (the columns are: {there}): name one so."
                    f"{suggest(name, [one_line(column) for column in columns])}"
                )
        for column in columns:
            meant = column.strip().lower()
            if meant in _MEANT and column != meant:
                beside = f"beside {meant!r}" if meant in columns else f"that is not read, {meant!r} would be"
                raise UserError(
                    f"{self._table.name}: there is a column {column!r} {beside}: rename it, to {meant!r} if "
                    f"it is meant."
                )

    def _sort(self) -> "pa.MemoryMappedFile":
        """Return the rows, sorted, as a parquet file that has no name any more: no end of ours leaves it behind."""
        import duckdb
        import pyarrow as pa

        with tempfile.TemporaryDirectory(prefix="videogen-") as folder:
            unsorted, ordered = f"{folder}/unsorted.parquet", f"{folder}/sorted.parquet"
            self._spool(unsorted)
            settings = {"memory_limit": _SORT_MEMORY, "temp_directory": folder, "threads": "2"}
            with duckdb.connect(config={**settings}) as connection:
                relation = connection.read_parquet(unsorted).order("path, caption IS NULL, row")
                relation.project("path, uri, version, caption").write_parquet(ordered, compression="zstd")
            return pa.memory_map(ordered)

    def _spool(self, file: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        fields = [(name, pa.string()) for name in ("path", "uri", "version", "caption")]
        with pq.ParquetWriter(file, pa.schema([*fields, ("row", pa.int64())]), compression="zstd") as writer:
            for chunk in self._table.rows(_COLUMNS):
                first_row, empty = self.num_rows, [None] * len(chunk["video"])
                self.num_rows += len(empty)
                rows = range(first_row, self.num_rows)
                places = [
                    self._place(name and well_formed(name), row) for name, row in zip(chunk["video"], rows, strict=True)
                ]
                captions = [_one_line(caption) for caption in chunk.get("caption", empty)]
                self.num_captions += sum(caption is not None for caption in captions)
                versions = [well_formed(version) if version else None for version in chunk.get("version", empty)]
                paths, uris = zip(*places, strict=True)
                writer.write_batch(pa.record_batch([paths, uris, versions, captions, rows], schema=writer.schema))
        self._check_columns()
        if not self.num_rows:
            raise UserError(f"{self._table.name}: there is no row in it: name at least one video.")

    def _place(self, name: str | None, row: int) -> tuple[str, str]:
        """Return path and URI of a video as a table names it."""
        if not name or not name.strip():
            self._check_columns()
            raise UserError(f"{self._table.name}: row {row + 1} names no video: fill in the column 'video' there.")
        if "\0" in name:
            raise UserError(f"{self._table.name}: row {row + 1} names a video with a NUL in it: mend it there.")
        self.example = self.example or name
        uri = self._uri(name.strip())
        return uri.removeprefix(f"{self._base}/"), uri

    def _uri(self, name: str) -> str:
        if "://" in name or name.startswith("/"):
            try:
                return storage.absolute(name)
            except UserError as error:
                raise UserError(f"{self._table.name}: {error}") from error
        if not storage.is_remote(self._base):
            return os.path.normpath(f"{self._base}/{name}")
        # Keys of S3 are no paths: only what a person writes by habit is resolved.
        if name.startswith("./") or "../" in name:
            name = posixpath.normpath(name)
        if name.startswith("../"):
            raise UserError(f"{self._table.name}: {name!r} leads out of {self._base!r}: give such a video's whole URI.")
        return storage.join(self._base, name)


def _one_line(text: str | None) -> str | None:
    """Return a caption with its white space in order, None without any."""
    return " ".join(well_formed(text or "").split()) or None
