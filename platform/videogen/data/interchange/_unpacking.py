"""Resumable unpacking of shards, shared by all imports: videos are copied to a folder, the manifest is written last.

OUTPUT/videos/<shard>/...        the videos, unchanged
OUTPUT/imported/<shard>.parquet  record of one completed shard, read when the import is resumed
OUTPUT/videos.parquet            manifest for `open_source`: video, caption; each video of a shard once
OUTPUT/errors.parquet            items that were not imported: shard, member, error
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from videogen import storage
from videogen.data.sources import well_formed
from videogen.data.video import reason_of
from videogen.errors import UserError
from videogen.hashing import content_hash

if TYPE_CHECKING:
    import pyarrow as pa

VIDEOS_NAME = "videos.parquet"
ERRORS_NAME = "errors.parquet"
MAX_VIDEO_BYTES = 4 << 30
MAX_TEXT_BYTES = 1 << 20

COPY_BYTES = 1 << 20
"""Chunk size for copying a video."""
_RECORD_VERSION = 2
"""Version of the columns of a record; part of its file name, so records of older releases are ignored."""
_UNSAFE = re.compile(r"[^\w.=@+-]+")


class Found(NamedTuple):
    """One video of a shard, or one item that cannot be imported."""

    member: str
    """Name of the item in the shard."""
    video: str = ""
    """Path in OUTPUT, or a URI; "" if it is not imported."""
    caption: str | None = None
    num_captions: int = 0
    """Number of captions that the shard provides."""
    error: str = ""


@dataclass(frozen=True)
class ImportResult:
    """Manifest and counts of an import."""

    manifest: str
    """URI of the manifest, the input of jobs/ingest.py."""
    num_videos: int
    num_captions: int
    num_errors: int
    num_several: int
    """Videos with several captions, of which the first was taken."""
    num_empty_shards: int
    """Shards without videos and without errors."""


class DamagedError(Exception):
    """A shard that cannot be read beyond this point."""


class TooLargeError(ValueError):
    """A video above the size limit."""


def safe_name(member: str) -> str:
    """Return a file name without path components for a member of a shard; distinct members get distinct names."""
    flat = _UNSAFE.sub("_", member.replace("/", "__")).lstrip(".")
    if flat == member and len(flat) <= 150:
        return flat
    stem, dot, suffix = flat.rpartition(".")
    return f"{(stem or 'video')[:100]}-{content_hash(member)[:8]}{dot}{suffix[:20]}"


def copy_video(chunks: Iterable[bytes], uri: str, max_bytes: int) -> None:
    """Write a stream to `uri` atomically.

    Raises:
        TooLargeError: it is longer than `max_bytes`.
        UserError: `uri` cannot be written; the video is not to blame.
    """
    try:
        with storage.atomic_stream(uri) as target:
            copied = 0
            for chunk in chunks:
                copied += len(chunk)
                if copied > max_bytes:
                    raise TooLargeError(f"it has more than {max_bytes} bytes")
                target.write(chunk)
    except UserError:
        raise
    except OSError as error:
        raise UserError(
            f"Cannot write {uri!r} ({reason_of(error)}): free some space, then run the same command again."
        ) from error


def unpack_shards(
    shards: Sequence[str],
    output: str,
    unpack: Callable[[str, str], Iterator[Found]],
    settings: Mapping[str, object],
    advance: Callable[[], None],
) -> ImportResult:
    """Unpack all shards that no earlier run completed, and write the manifest.

    Args:
        shards: URIs; a shard that was replaced is unpacked again.
        output: folder.
        unpack: called with the URI of a shard and a folder name in `output`; yields all items of the shard.
        settings: all other parameters of the result.
        advance: called after each shard.

    Raises:
        UserError: `output` is not writable, or no shard contains a video.
    """
    output = storage.absolute(output)
    storage.require_writable(output, "Output")
    records = []
    for shard in shards:
        name = f"{safe_name(shard.rsplit('/', 1)[-1])}-{content_hash(shard)[:8]}"
        key = content_hash(_RECORD_VERSION, shard, storage.version(shard), dict(settings))
        record = storage.join(output, "imported", f"{name}-{key}.parquet")
        if not storage.exists(record):
            _write_record(record, unpack(shard, f"videos/{name}"))
        records.append((shard, record))
        advance()
    return _write_tables(output, records)


def _record_schema() -> "pa.Schema":
    import pyarrow as pa

    return pa.schema([(name, pa.int64() if name == "num_captions" else pa.string()) for name in Found._fields])


def _write_record(uri: str, found: Iterator[Found]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {name: well_formed(value) if isinstance(value, str) else value for name, value in item._asdict().items()}
        for item in found
    ]
    table = pa.Table.from_pylist(rows, schema=_record_schema())
    with storage.atomic_stream(uri) as file:
        pq.write_table(table, file)


def _read_record(uri: str) -> tuple[list[Found], list[Found]]:
    """Return a shard's videos, each once with its first caption, and the items with errors."""
    import pyarrow.parquet as pq

    filesystem, path = storage.arrow_filesystem(uri)
    found = [Found(**row) for row in pq.read_table(path, filesystem=filesystem).to_pylist()]
    videos: dict[str, Found] = {}
    for item in found:
        if item.video and (item.video not in videos or videos[item.video].caption is None):
            videos[item.video] = item
    return list(videos.values()), [item for item in found if not item.video]


def _write_tables(output: str, records: Sequence[tuple[str, str]]) -> ImportResult:
    """Write the manifest and the errors from the records of all shards, one at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # A manifest with a column `caption` must contain captions.
    captioned = any(item.caption for _, record in records for item in _read_record(record)[0])
    names = ["video", "caption"] if captioned else ["video"]
    text = pa.string()
    manifest, errors = storage.join(output, VIDEOS_NAME), storage.join(output, ERRORS_NAME)
    result = ImportResult(manifest, 0, 0, 0, 0, 0)
    first_error = ""
    with contextlib.ExitStack() as stack:
        # Opened before the manifest and therefore closed after it.
        error_file = stack.enter_context(storage.atomic_stream(errors))
        error_schema = pa.schema([("shard", text), ("member", text), ("error", text)])
        error_writer = stack.enter_context(pq.ParquetWriter(error_file, error_schema))
        with (
            storage.atomic_stream(manifest) as file,
            pq.ParquetWriter(file, pa.schema([(name, text) for name in names])) as out,
        ):
            for shard, record in records:
                videos, failed = _read_record(record)
                if failed:
                    first_error = first_error or f"{failed[0].member}: {failed[0].error}".removeprefix(": ")
                    rows = [{"shard": shard, "member": item.member, "error": item.error} for item in failed]
                    error_writer.write_table(pa.Table.from_pylist(rows, error_schema))
                rows = [{name: getattr(item, name) for name in names} for item in videos]
                out.write_table(pa.Table.from_pylist(rows, out.schema))
                result = _counted(result, videos, failed)
            if not result.num_videos:
                raise UserError(
                    f"{records[0][0]!r}{' and the other shards' if len(records) > 1 else ''}: there is no video to "
                    f"import{f' ({first_error})' if first_error else ''}."
                )
    return result


def _counted(result: ImportResult, videos: Sequence[Found], failed: Sequence[Found]) -> ImportResult:
    return replace(
        result,
        num_videos=result.num_videos + len(videos),
        num_captions=result.num_captions + sum(item.caption is not None for item in videos),
        num_errors=result.num_errors + len(failed),
        num_several=result.num_several + sum(item.num_captions > 1 for item in videos),
        num_empty_shards=result.num_empty_shards + (not videos and not failed),
    )


CAPTION_NAMES = ("caption", "text", "prompt")
"""Default names of the caption column or key, in order of preference."""


class Caption(NamedTuple):
    """Caption of a video."""

    text: str | None
    """One line of text; None if there is none."""
    num_given: int
    """Number of captions provided; the first one is taken."""


def caption_of(value: Any) -> Caption:
    """Return the caption from a text, or the first one from a list of texts.

    Raises:
        ValueError: neither text nor a list of texts.
    """
    values = value if isinstance(value, list) else [value]
    if any(not isinstance(one, str | None) for one in values):
        raise ValueError("it is neither text nor a list of texts")
    lines = [line for one in values if (line := " ".join((one or "").split()))]
    return Caption(lines[0] if lines else None, len(lines))


def holds_captions(kind: "pa.DataType") -> bool:
    """Return whether a column of this type contains texts or lists of texts."""
    import pyarrow as pa

    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _is_text(kind.value_type)
    return _is_text(kind)


def _is_text(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    # A column that contains only nulls has the null type.
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    return any(test(kind) for test in tests)
