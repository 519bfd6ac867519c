"""Video sources: a folder, an S3 prefix, one video or a manifest, as a stream in a fixed order with captions.

The order is that of the UTF-8 bytes of the videos' paths, however many videos there are.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from videogen import storage
from videogen.data.sources._captions import CAPTIONS_NAMES, CaptionJoin, find_captions
from videogen.data.sources._listing import Entry, find_versions, list_files
from videogen.data.sources._text_table import TABLE_SUFFIXES, listed
from videogen.data.sources._video_table import VideoTable
from videogen.data.video import SUFFIXES
from videogen.errors import UserError
from videogen.hashing import content_hash

if TYPE_CHECKING:
    import pyarrow as pa

GIVEN_VERSION = "given:"
"""Prefix of a version that a manifest provides; such a version is never compared with the file."""

_ROWS_AT_ONCE = 65536


class Video(NamedTuple):
    """One video of a source: a row of `source_schema()`."""

    video_id: str
    uri: str
    path: str
    """Relative to the source's folder, or the URI of a video outside it. Captions name videos by it."""
    version: str
    """Changes when the file is replaced: its ETag, or size and modification time."""
    size_bytes: int | None
    caption: str | None


def video_id(uri: str, version: str) -> str:
    """Return the id of one version of one file."""
    return content_hash(uri, version)


def version_mismatch(now: str, version: str) -> str:
    """Return why a file is no longer the one that a table was made from; "" if it still is.

    Args:
        now: its current version, from `find_versions`.
        version: its version in the table.
    """
    if not now:
        return "there is no such file any more"
    if now == version or version.startswith(GIVEN_VERSION):
        return ""
    return "it was replaced since it was ingested: ingest again"


def source_schema() -> "pa.Schema":
    """Return the columns of a source's batches.

    A missing file has the version "" and a null `size_bytes`. `size_bytes` is also null where a manifest provides the
    version, which then begins with `GIVEN_VERSION`. `caption` is one line of text, or null.
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


def open_source(uri: str, captions: str | None = None, what: str = "Input") -> "Source":
    """Open a source and check everything that can be checked without opening a video.

    Args:
        uri: a folder or an S3 prefix, searched recursively; one video; or a manifest (parquet, csv, jsonl): column
            `video` (a URI, or a path relative to the manifest's folder), optionally `caption`, and optionally
            `version`, any text that changes when the file does.
        captions: parquet, csv or jsonl with `video` (a URI, or a path relative to the folder) and `caption`; these
            captions take precedence over those of a manifest. None: no additional captions.
        what: names the input in error messages.

    Raises:
        UserError: missing, empty, unreadable, without any video, or captions that match none of the videos.
    """
    location = storage.absolute(uri)
    storage.require_readable(location, what)
    return _open(location, uri, captions, what, storage.is_dir(location))


def open_corpus(uri: str, captions: str | None = None, what: str = "Input") -> "Source":
    """Open a source with its captions: those given, else the table `captions.*` in its folder, if there is one.

    Every job that reads captions opens its videos here. Arguments and errors are those of `open_source`.
    """
    return open_readable_corpus(storage.readable_uri(uri, what), captions, what)


def open_readable_corpus(location: str, captions: str | None = None, what: str = "Input") -> "Source":
    """Open a source as `open_corpus` does, at an absolute URI that `storage.readable_uri` has returned."""
    is_dir = storage.is_dir(location)
    if captions is None and is_dir:
        captions = find_captions(location)
    return _open(location, location, captions, what, is_dir)


def _open(location: str, uri: str, captions: str | None, what: str, is_dir: bool) -> "Source":
    source: Source
    if is_dir:
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
    """Videos in a fixed order; created by `open_source` and `open_corpus`."""

    def __init__(self, uri: str, what: str) -> None:
        self.uri = uri
        self.what = what
        self.notes: list[str] = []
        """Log messages about files and columns that are ignored."""
        self.num_duplicates = 0
        """Rows of a manifest that name a video which an earlier row names too."""
        self._captions: VideoTable | None = None

    @property
    def root(self) -> str:
        """Folder that paths are relative to."""
        return storage.parent(self.uri)

    @property
    def has_captions(self) -> bool:
        """Whether any video has a caption."""
        return self._captions is not None

    def check(self) -> None:
        """Raise `UserError` if there is no video, or if the location of the first one cannot be listed."""
        next(self._videos(1), None)

    def add_captions(self, uri: str) -> None:
        """Take captions from a table.

        Raises:
            UserError: not a caption table, or it matches none of the videos.
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
        """Yield all videos, each once, as batches of `source_schema()` with at most `rows` rows."""
        import pyarrow as pa

        for batch in self._described(rows):
            known = zip(batch["uri"].to_pylist(), batch["version"].to_pylist(), strict=True)
            ids = pa.array([video_id(uri, version) for uri, version in known], pa.string())
            columns = {name: batch[name] for name in batch.schema.names} | {"video_id": ids}
            schema = source_schema()
            yield pa.record_batch([columns[name] for name in schema.names], schema=schema)

    def videos(self) -> Iterator[Video]:
        """Yield all videos, each once; `batches` is the columnar form for corpora of millions."""
        for batch in self.batches():
            yield from (Video(**row) for row in batch.to_pylist())

    def _described(self, rows: int = _ROWS_AT_ONCE) -> "Iterator[pa.RecordBatch]":
        import pyarrow.compute as pc

        if self._captions is None:
            yield from self._videos(rows)
            return
        join = CaptionJoin(self._captions)
        for batch in self._videos(rows):
            captions = pc.coalesce(join.captions_of(batch["path"]), batch["caption"])
            yield batch.set_column(batch.schema.get_field_index("caption"), "caption", captions)

    @abstractmethod
    def _videos(self, rows: int) -> "Iterator[pa.RecordBatch]":
        """Yield `uri`, `path`, `version`, `size_bytes` and `caption`, sorted by path."""


class Folder(Source):
    """A folder or an S3 prefix, searched recursively for files with a video suffix."""

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
        ignored = _IgnoredFiles()
        files = list_files(self.uri, self.what)
        videos = (entry for entry in files if entry.path.lower().endswith(SUFFIXES) or ignored.count(entry))
        while entries := list(itertools.islice(videos, rows)):
            yield _batch(entries)
        if ignored.number and not self.notes:
            self.notes.append(
                f"{self.what} {self.uri!r}: {ignored.number} files are ignored because they have no video suffix, e.g. "
                f"{ignored.example!r}."
            )


class _IgnoredFiles:
    """Count of the files in a folder that are not taken for videos."""

    def __init__(self) -> None:
        self.number = 0
        self.example = ""

    def count(self, entry: Entry) -> bool:
        """Count a file unless it is hidden or a caption table; always return False."""
        name = entry.path.rsplit("/", 1)[-1]
        if not name.startswith(".") and name not in CAPTIONS_NAMES:
            self.number += 1
            self.example = self.example or entry.path
        return False


class SingleVideo(Source):
    """One video file."""

    def _videos(self, rows: int) -> "Iterator[pa.RecordBatch]":
        ((version, size),) = find_versions([self.uri], self.what)
        yield _batch([Entry(self.uri.rsplit("/", 1)[-1], self.uri, version, size)])


class Manifest(Source):
    """Videos named by a table. Missing files are reported when they are read: there may be millions."""

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
        """Whether any video has a caption."""
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
