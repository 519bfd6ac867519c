"""What to ingest: a folder, an S3 prefix, one video, or a manifest that names videos; with their captions, if any.

A source is a stream in a fixed order, however many videos there are: sorted by the UTF-8 bytes of their paths.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

from videogen import storage
from videogen.data.sources._listing import Entry, find_versions, list_files
from videogen.data.sources._text_table import TABLE_SUFFIXES, listed
from videogen.data.sources._video_table import VideoTable
from videogen.data.video import SUFFIXES
from videogen.errors import UserError
from videogen.hashing import content_hash

if TYPE_CHECKING:
    import pyarrow as pa

CAPTIONS_NAMES = tuple(f"captions{suffix}" for suffix in TABLE_SUFFIXES)
"""A folder that holds a table of one of these names is a captioned corpus."""

GIVEN_VERSION = "given:"
"""Begins the version of a video whose manifest names one: only whoever wrote it can tell whether the file is that."""

_ROWS_AT_ONCE = 65536


def video_id(uri: str, version: str) -> str:
    """Return the name of one content of one file."""
    return content_hash(uri, version)


def version_mismatch(now: str, version: str) -> str:
    """Return what is wrong with a file of which a table tells; "" if nothing is.

    Args:
        now: its version as `find_versions` sees it now.
        version: what the table says.
    """
    if not now:
        return "there is no such file any more"
    if now == version or version.startswith(GIVEN_VERSION):
        return ""
    return "it was replaced since it was ingested: ingest again"


def source_schema() -> "pa.Schema":
    """Return the columns of a source's batches.

    `version` is "" and `size_bytes` null where nothing is known of a file, which is then most likely not there.
    `size_bytes` is also null where a manifest gives the version, which then begins with `GIVEN_VERSION`. `caption` is
    one line, or null.
    """
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("video_id", pa.string(), nullable=False),
            pa.field("uri", pa.string(), nullable=False),
            pa.field("path", pa.string(), nullable=False),
            pa.field("version", pa.string(), nullable=False),
            pa.field("size_bytes", pa.int64()),
            pa.field("caption", pa.string()),
        ]
    )


def find_captions(uri: str) -> str | None:
    """Return the table of captions that lies in the folder `uri`, if one does."""
    return next((found for name in CAPTIONS_NAMES if storage.exists(found := storage.join(uri, name))), None)


def open_source(uri: str, captions: str | None = None, what: str = "Input") -> "Source":
    """Open what is to be ingested, and check all of it that can be checked without opening a video.

    Args:
        uri: a folder or an S3 prefix, searched recursively; one video; or a manifest (parquet, csv, jsonl): column
            `video` (a URI, or a path relative to the manifest's folder), perhaps `caption`, and perhaps `version`,
            any text that changes when the file does.
        captions: parquet, csv or jsonl with `video` (a URI, or a path relative to the folder) and `caption`; they go
            before those of a manifest. None: no others; `find_captions` finds those that lie in a folder.
        what: names the input for the reader of an error.

    Raises:
        UserError: missing, empty, unreadable, without any video, or captions that describe none of the videos.
    """
    location = storage.absolute(uri)
    storage.require_readable(location, what)
    source: Source
    if storage.is_dir(location):
        source = Folder(location, what)
    elif location.lower().endswith(TABLE_SUFFIXES):
        source = Manifest(location, what)
    elif location.lower().endswith(SUFFIXES):
        source = SingleVideo(location, what)
    else:
        raise UserError(
            f"{what} {uri!r} is neither a video ({', '.join(SUFFIXES)}) nor a manifest ({', '.join(TABLE_SUFFIXES)}): "
            f"give a folder, a video or a manifest."
        )
    source.check()
    if captions is not None:
        source.add_captions(captions)
    return source


class Source(ABC):
    """Videos in a fixed order; made by `open_source`."""

    def __init__(self, uri: str, what: str) -> None:
        self.uri = uri
        self.what = what
        self.notes: list[str] = []
        """Sentences about what was left out, for the log."""
        self.num_duplicates = 0
        """Rows of a manifest that name a video which another row names too."""
        self._captions: VideoTable | None = None

    @property
    def root(self) -> str:
        """Folder that paths are relative to."""
        return storage.parent(self.uri)

    @property
    def has_captions(self) -> bool:
        """Whether any video is described."""
        return self._captions is not None

    def check(self) -> None:
        """Raise `UserError` if there is no video, or if what holds the first cannot be listed."""
        next(self._videos(1), None)

    def add_captions(self, uri: str) -> None:
        """Describe videos by a table.

        Raises:
            UserError: not such a table, or it describes none of the videos.
        """
        table = VideoTable(storage.absolute(uri), self.root, "Captions", required=("video", "caption"))
        self._captions = table
        num_videos, first = 0, ""
        for batch in self._described():
            if batch["caption"].null_count < len(batch):
                return
            num_videos += len(batch)
            first = first or batch["path"][0].as_py()
        raise UserError(
            f"Captions {uri!r} describe none of the {num_videos} videos (they name {table.example!r}, the corpus holds "
            f"{first!r}): `video` must be a path relative to the corpus folder, and `caption` not empty."
        )

    def batches(self, rows: int = _ROWS_AT_ONCE) -> "Iterator[pa.RecordBatch]":
        """Yield all videos, each once, in batches of at most `rows`, of `source_schema()`."""
        import pyarrow as pa

        for batch in self._described(rows):
            known = zip(batch["uri"].to_pylist(), batch["version"].to_pylist(), strict=True)
            ids = pa.array([video_id(uri, version) for uri, version in known], pa.string())
            columns = {name: batch[name] for name in batch.schema.names} | {"video_id": ids}
            schema = source_schema()
            yield pa.record_batch([columns[name] for name in schema.names], schema=schema)

    def _described(self, rows: int = _ROWS_AT_ONCE) -> "Iterator[pa.RecordBatch]":
        import pyarrow.compute as pc

        if self._captions is None:
            yield from self._videos(rows)
            return
        join = _Join(self._captions)
        for batch in self._videos(rows):
            captions = pc.coalesce(join.captions_of(batch["path"]), batch["caption"])
            yield batch.set_column(batch.schema.get_field_index("caption"), "caption", captions)

    @abstractmethod
    def _videos(self, rows: int) -> "Iterator[pa.RecordBatch]":
        """Yield `uri`, `path`, `version`, `size_bytes` and `caption`, sorted by path."""


class Folder(Source):
    """A folder or an S3 prefix, searched recursively for names that end as videos do."""

    @property
    def root(self) -> str:
        """Folder that paths are relative to."""
        return self.uri

    def check(self) -> None:
        """Raise `UserError` if there is no video."""
        shards = ""
        for entry in list_files(self.uri, self.what):
            if entry.path.lower().endswith(SUFFIXES):
                return
            if entry.path.lower().endswith((".tar", ".parquet")):
                shards = entry.path
        hint = f" ({shards!r} may hold some: jobs/import_videos.py unpacks them)" if shards else ""
        raise UserError(
            f"{self.what} {self.uri!r} holds no video{hint}: put files there that end in {', '.join(SUFFIXES)}."
        )

    def _videos(self, rows: int) -> "Iterator[pa.RecordBatch]":
        others = _Others()
        files = list_files(self.uri, self.what)
        videos = (entry for entry in files if entry.path.lower().endswith(SUFFIXES) or others.count(entry))
        while entries := list(itertools.islice(videos, rows)):
            yield _batch(entries)
        if others.number and not self.notes:
            self.notes.append(
                f"{self.what} {self.uri!r}: {others.number} files are no videos by their names, e.g. "
                f"{others.example!r}."
            )


class _Others:
    """Files of a folder that are not taken for videos."""

    def __init__(self) -> None:
        self.number = 0
        self.example = ""

    def count(self, entry: Entry) -> bool:
        """Count a file that nobody would expect to be left out; always False."""
        name = entry.path.rsplit("/", 1)[-1]
        if not name.startswith(".") and name not in CAPTIONS_NAMES:
            self.number += 1
            self.example = self.example or entry.path
        return False


class SingleVideo(Source):
    """One file."""

    def _videos(self, rows: int) -> "Iterator[pa.RecordBatch]":
        ((version, size),) = find_versions([self.uri], self.what)
        yield _batch([Entry(self.uri.rsplit("/", 1)[-1], self.uri, version, size)])


class Manifest(Source):
    """Videos that a table names. Whether they are there shows when they are read: they may be millions."""

    def __init__(self, uri: str, what: str) -> None:
        super().__init__(uri, what)
        self._table = VideoTable(uri, self.root, what)
        self.num_duplicates = self._table.num_rows - self._table.num_videos
        if self._table.has_caption_column and not self._table.num_captions:
            raise UserError(
                f"{what} {uri!r} has a column 'caption' without any caption: fill it in, or leave the column out."
            )
        if self._table.unread_columns:
            self.notes.append(f"{what} {uri!r}: columns that are not read: {listed(self._table.unread_columns)}.")
        if self.num_duplicates:
            self.notes.append(f"{what} {uri!r}: {self.num_duplicates} rows name a video that another row names too.")

    @property
    def has_captions(self) -> bool:
        """Whether any video is described."""
        return self._table.num_captions > 0 or super().has_captions

    def _videos(self, rows: int) -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa

        for batch in self._table.batches(rows):
            uris, versions = batch["uri"].to_pylist(), batch["version"].to_pylist()
            versions = [version and GIVEN_VERSION + version for version in versions]
            unknown = [index for index, version in enumerate(versions) if version is None]
            sizes: list[int | None] = [None] * len(uris)
            found = find_versions([uris[index] for index in unknown], self.what)
            for index, (version, size) in zip(unknown, found, strict=True):
                versions[index], sizes[index] = version, size
            columns = [batch["uri"], batch["path"], pa.array(versions, pa.string()), pa.array(sizes, pa.int64())]
            yield pa.record_batch(
                [*columns, batch["caption"]], names=["uri", "path", "version", "size_bytes", "caption"]
            )


class _Join:
    """Captions for videos that come in the order of their paths, as the captions do."""

    def __init__(self, table: VideoTable) -> None:
        self._batches = table.batches()
        self._pending = next(self._batches, None)

    def captions_of(self, paths: "pa.Array") -> "pa.Array":
        """Return the caption of each path, or null; the paths come after all of the last call."""
        import pyarrow as pa
        import pyarrow.compute as pc

        matched = []
        while self._pending is not None:
            matched.append(self._pending.filter(pc.is_in(self._pending["path"], paths)))
            self._pending = self._pending.filter(pc.greater(self._pending["path"], paths[-1]))
            if len(self._pending):
                break
            self._pending = next(self._batches, None)
        if not matched:
            return pa.nulls(len(paths), pa.string())
        found = pa.Table.from_batches(matched).combine_chunks()
        captions = found["caption"].combine_chunks()
        return captions.take(pc.index_in(paths, value_set=found["path"].combine_chunks()))


def _batch(entries: list[Entry]) -> "pa.RecordBatch":
    import pyarrow as pa

    return pa.record_batch(
        {
            "uri": pa.array([entry.uri for entry in entries], pa.string()),
            "path": pa.array([entry.path for entry in entries], pa.string()),
            "version": pa.array([entry.version for entry in entries], pa.string()),
            "size_bytes": pa.array([entry.size_bytes for entry in entries], pa.int64()),
            "caption": pa.nulls(len(entries), pa.string()),
        }
    )
