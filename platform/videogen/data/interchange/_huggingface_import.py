"""Import from Hugging Face parquet: a column of videos (bytes, a path, or a struct of both) and one of captions."""

import logging
import posixpath
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from videogen import storage
from videogen.cli import suggest
from videogen.data.interchange._source_videos import KEY_NAME, MEMBER_SUFFIXES
from videogen.data.interchange._unpacking import (
    CAPTION_NAMES,
    MAX_VIDEO_BYTES,
    Found,
    ImportResult,
    caption_of,
    copy_video,
    holds_captions,
    safe_name,
    unpack_shards,
)
from videogen.data.sources import find_versions
from videogen.data.video import reason_of
from videogen.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

logger = logging.getLogger(__name__)

SHARD_SUFFIXES = (".parquet",)

_VIDEO_NAMES = ("video", "videos", "mp4", "file")
_VERSION_NAME = "video_version"
"""Column of our own exports with the version of a local file."""
_VIDEOS_AT_ONCE = 4
"""Number of rows with embedded videos that are in memory at a time."""


class _Columns(NamedTuple):
    """Names of the columns that are read."""

    video: str
    caption: str | None
    version: str | None


def import_huggingface(
    shards: Sequence[str],
    output: str,
    root: str,
    video: str | None = None,
    caption: str | None = None,
    max_video_bytes: int = MAX_VIDEO_BYTES,
    advance: Callable[[], None] = lambda: None,
) -> ImportResult:
    """Copy the videos of parquet shards into a folder that `open_source` reads; a repeated call resumes.

    Videos given by a path are not copied: the manifest refers to them. Rows that cannot be read become rows of
    errors.parquet. Shards without a column of videos are skipped if others have one.

    Args:
        shards: URIs of parquet files.
        output: folder.
        root: folder of the data set that relative paths refer to.
        video: column of videos; None: the first of `video`, `videos`, `mp4`, `file`.
        caption: column of captions; None: the first of `CAPTION_NAMES`, if any.
        max_video_bytes: size limit of a video.
        advance: called after each shard.

    Raises:
        UserError: no such columns, no video in any shard, or `output` is not writable.
    """
    schemas = ((shard, _read_schema(shard)) for shard in shards)
    columns = {shard: _find_columns(shard, schema, video, caption) for shard, schema in schemas}
    if not any(columns.values()):
        names = _read_schema(shards[0]).names
        cure = "give the whole export, with its videos" if KEY_NAME in names else "name the column with the videos"
        raise UserError(f"Shard {shards[0]!r} has no column 'video', only {', '.join(names)}: {cure}.")

    def unpack(shard: str, folder: str) -> Iterator[Found]:
        return _unpack(shard, columns[shard], storage.absolute(output), folder, root, max_video_bytes)

    settings = {"root": root, "video": video, "caption": caption, "max": max_video_bytes}
    return unpack_shards(shards, output, unpack, settings, advance)


def _read_schema(shard: str) -> "pa.Schema":
    import pyarrow as pa
    import pyarrow.parquet as pq

    filesystem, path = storage.arrow_filesystem(shard)
    try:
        with filesystem.open_input_file(path) as file:
            schema = pq.read_schema(file)
        _ = schema.names  # decoded lazily
    except UserError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"Shard {shard!r} is not a parquet file ({reason_of(error)}): remove it.") from error
    return schema


def _find_columns(shard: str, schema: "pa.Schema", video: str | None, caption: str | None) -> _Columns | None:
    """Return the columns to read from a shard; None if it has no videos.

    Raises:
        UserError: a requested column is missing or has another type.
    """
    found = video if video is not None else next((name for name in _VIDEO_NAMES if name in schema.names), None)
    if found is None:
        return None
    for requested in (video, caption):
        if requested is not None and requested not in schema.names:
            raise UserError(
                f"Shard {shard!r} has no column {requested!r}, only {', '.join(schema.names)}: name one of these."
                f"{suggest(requested, schema.names)}"
            )
    if len(set(schema.names)) < len(schema.names):
        twice = next(name for name in schema.names if schema.names.count(name) > 1)
        raise UserError(f"Shard {shard!r} has two columns {twice!r}: rename one of them.")
    if not _holds_videos(schema.field(found).type):
        raise UserError(
            f"Shard {shard!r}: the column {found!r} holds {schema.field(found).type}, but a video is bytes, a path, or "
            f"a struct of both."
        )
    text = caption if caption is not None else next((name for name in CAPTION_NAMES if name in schema.names), None)
    if text is not None and not holds_captions(schema.field(text).type):
        problem = (
            f"Shard {shard!r}: the column {text!r} holds {schema.field(text).type}, but a caption is text or a list"
        )
        if caption is not None:
            raise UserError(f"{problem} of texts: name another, or leave --caption out.")
        logger.warning("%s of texts: it is ignored", problem)
        text = None
    return _Columns(found, text, _VERSION_NAME if _VERSION_NAME in schema.names else None)


def _holds_videos(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    texts, blobs = (pa.types.is_string, pa.types.is_large_string), (pa.types.is_binary, pa.types.is_large_binary)
    if not pa.types.is_struct(kind):
        return any(test(kind) for test in (*texts, *blobs))
    fields = {field.name: field.type for field in kind}
    # A column that contains only nulls has the null type.
    return all(
        name in fields and any(test(fields[name]) for test in (*tests, pa.types.is_null))
        for name, tests in (("bytes", blobs), ("path", texts))
    )


def _unpack(
    shard: str, columns: _Columns | None, output: str, folder: str, root: str, max_video_bytes: int
) -> Iterator[Found]:
    """Yield the items of a shard row by row and write its videos."""
    if columns is None:
        return
    for row, cells in _rows(shard, columns):
        if isinstance(cells, Found):
            yield cells
            continue
        member = f"row {row}"
        try:
            cell = cells["video"].as_py()
            version = cells["version"].as_py() if columns.version else None
        except UnicodeDecodeError as error:
            yield Found(member, error=f"its video cannot be read ({error})")
            continue
        found = _video(cell, version, member, row, output, folder, root, max_video_bytes)
        if not found.video or columns.caption is None:
            yield found
            continue
        try:
            text, num_given = caption_of(cells["caption"].as_py())
            yield found._replace(caption=text, num_captions=num_given)
        except ValueError as error:  # of UTF-8, too
            yield found
            yield Found(member, error=f"its caption cannot be read ({error})")


def _rows(shard: str, columns: _Columns) -> "Iterator[tuple[int, dict[str, pa.Scalar] | Found]]":
    """Yield the number and cells of each row; for damaged rows, an item with the error."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    damage = (pa.ArrowException, OSError)
    filesystem, path = storage.arrow_filesystem(shard)
    with filesystem.open_input_file(path) as opened:
        try:
            file = pq.ParquetFile(opened, page_checksum_verification=True)
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        except damage as error:
            yield 0, _damaged(error, "it")
            return
        row = 0
        for group, num_rows in enumerate(sizes):
            end = row + num_rows
            try:
                for cells in _group_rows(file, group, columns):
                    yield row, cells
                    row += 1
            except damage as error:
                # Earlier rows and the next row group are intact.
                yield row, _damaged(error, f"rows {row} to {end - 1}")
            row = end


def _group_rows(file: "pq.ParquetFile", group: int, columns: _Columns) -> "Iterator[dict[str, pa.Scalar]]":
    read = {kind: name for kind, name in columns._asdict().items() if name is not None}
    names = list(dict.fromkeys(read.values()))
    for batch in file.iter_batches(_VIDEOS_AT_ONCE, row_groups=[group], columns=names):
        for index in range(len(batch)):
            yield {kind: batch[name][index] for kind, name in read.items()}


def _damaged(error: Exception, what: str) -> Found:
    if isinstance(error, UserError):
        # The storage failed; the shard is not to blame.
        raise error
    return Found(what, error=f"cannot be read ({reason_of(error)})")


def _video(
    cell: Any, version: str | None, member: str, row: int, output: str, folder: str, root: str, max_bytes: int
) -> Found:
    """Write the embedded video of a row, or return the location of the one that it names."""
    name, content = (cell.get("path"), cell.get("bytes")) if isinstance(cell, dict) else _path_or_bytes(cell)
    if content is None:
        return _named(name, version, member, root)
    if len(content) > max_bytes:
        return Found(member, error=f"it has {len(content)} bytes, more than {max_bytes}")
    location = f"{folder}/{row:08}-{_file_name(name)}"
    copy_video([content], storage.join(output, location), max_bytes)
    return Found(member, location)


def _path_or_bytes(cell: Any) -> tuple[str | None, bytes | None]:
    return (None, cell) if isinstance(cell, bytes) else (cell, None)


def _file_name(name: str | None) -> str:
    """Return a safe file name with a video suffix; the content is validated when it is read."""
    base = safe_name((name or "").rpartition("/")[2] or "video.mp4")
    return base if base.lower().endswith(MEMBER_SUFFIXES) else f"{base}.mp4"


def _named(name: str | None, version: str | None, member: str, root: str) -> Found:
    """Return a video that is given by a path: in the folder of the data set, or on S3, but no other local file.

    Our own exports may refer to local files, because they prove access with the file's version.
    """
    if not name:
        return Found(member, error="it has neither bytes nor a path")
    if storage.is_remote(name):
        return Found(member, name)
    inside = posixpath.normpath(name)
    if "://" not in name and not inside.startswith(("/", "../")) and inside != "..":
        return Found(member, storage.join(storage.absolute(root), inside))
    if version and inside.startswith("/"):
        ((now, _),) = find_versions([name])
        if now == version:
            return Found(member, name)
        state = "was replaced since the export" if now else "does not exist any more"
        return Found(member, error=f"its path {name!r} {state}: export the table again")
    return Found(member, error=f"its path {name!r} is not in the folder of the data set: name it in a manifest instead")
