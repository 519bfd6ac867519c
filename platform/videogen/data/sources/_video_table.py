"""Tables of videos and captions: validated completely, deduplicated, and sorted by path on disk."""

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
"""Columns whose misspelling is an error, because captions would be lost silently."""
_ROWS_AT_ONCE = 65536
_SORT_MEMORY = "128MB"
"""Memory that sorting may use before it spills to disk."""


class VideoTable:
    """Videos named by a table.

    Args:
        uri: absolute URI of a parquet, csv or jsonl file with the columns `video` (a URI, or a path in `base`), and
            optionally `caption` and `version` (any text that changes when the file does).
        base: folder that relative paths refer to.
        what: names the table in error messages, e.g. "Manifest".
        required: columns that it must have.

    Raises:
        UserError: a row is invalid; the whole table is read here.
    """

    def __init__(self, uri: str, base: str, what: str, required: Sequence[str] = ("video",)) -> None:
        self._table = TextTable(uri, what)
        self._base = base
        self._required = required
        self.num_rows = 0
        self.num_captions = 0
        """Rows with a caption."""
        self.example = ""
        """First video name in the table."""
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
        """Names of the columns that are ignored."""
        return [name for name in self._table.columns if name.strip() and name not in _COLUMNS]

    def batches(self, rows: int = _ROWS_AT_ONCE) -> "Iterator[pa.RecordBatch]":
        """Yield `path`, `uri`, `version`, `caption` (strings; the last two may be null) in the order of paths.

        `path` is relative to `base`, or the URI of a video outside it. Of several rows with the same video, the first
        one with a caption counts.
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
                    f"{self._table.name}: there is no column {name!r} (the columns are: {there}): rename one."
                    f"{suggest(name, [one_line(column) for column in columns])}"
                )
        for column in columns:
            meant = column.strip().lower()
            if meant in _MEANT and column != meant:
                beside = f"beside {meant!r}" if meant in columns else f"that is not read, unlike {meant!r}"
                raise UserError(
                    f"{self._table.name}: there is a column {column!r} {beside}: rename it, to {meant!r} if "
                    f"that is what it holds."
                )

    def _sort(self) -> "pa.MemoryMappedFile":
        """Return the sorted rows as an unlinked parquet file, which disappears with this process."""
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
        """Return the path and the URI of a video from its name in the table."""
        if not name or not name.strip():
            self._check_columns()
            raise UserError(f"{self._table.name}: row {row + 1} names no video: fill in the column 'video' there.")
        if "\0" in name:
            raise UserError(f"{self._table.name}: row {row + 1} names a video with a NUL character: correct it there.")
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
        # S3 keys are not paths: only the usual relative forms are resolved.
        if name.startswith("./") or "../" in name:
            name = posixpath.normpath(name)
        if name.startswith("../"):
            raise UserError(
                f"{self._table.name}: {name!r} is outside {self._base!r}: give the full URI of such a video."
            )
        return storage.join(self._base, name)


def _one_line(text: str | None) -> str | None:
    """Return a caption with normalised white space, or None if it is empty."""
    return " ".join(well_formed(text or "").split()) or None
