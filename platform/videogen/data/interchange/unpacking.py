"""What every import shares: videos are copied out of shards into a folder, and a manifest of them is written last.

OUTPUT/videos/<shard>/...        the videos, as they were in the shard
OUTPUT/imported/<shard>.parquet  what has become of one shard: written when all of it is done, read by a second run
OUTPUT/videos.parquet            manifest for `open_source`: video, caption
OUTPUT/errors.parquet            what was not imported: shard, member, error
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, NamedTuple

from videogen import storage
from videogen.data._text import well_formed
from videogen.data.sources import content_hash
from videogen.data.tables.files import atomic_stream
from videogen.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

VIDEOS_NAME = "videos.parquet"
ERRORS_NAME = "errors.parquet"
CAPTION_NAMES = ("caption", "text", "prompt")
"""Where a caption is looked for, unless the caller says where it is."""
MAX_VIDEO_BYTES = 4 << 30
MAX_TEXT_BYTES = 1 << 20

_COPY_BYTES = 1 << 20
_UNSAFE = re.compile(r"[^\w.=@+-]+")


class Found(NamedTuple):
    """One video of a shard, or one thing in it that is not imported."""

    member: str
    """Its name in the shard."""
    video: str = ""
    """Path in OUTPUT, or a URI elsewhere; "" if it is not imported."""
    caption: str | None = None
    error: str = ""


@dataclass(frozen=True)
class ImportResult:
    """What an import leaves behind."""

    manifest: str
    """URI of the manifest, to give to jobs/ingest.py."""
    num_videos: int
    num_captions: int
    num_errors: int


class TooLargeError(ValueError):
    """More bytes than a video may have."""


def safe_name(member: str) -> str:
    """Return a file name that stays in its folder, whatever a shard calls its members; distinct ones stay distinct."""
    flat = _UNSAFE.sub("_", member.replace("/", "__")).lstrip(".")
    if flat == member and len(flat) <= 150:
        return flat
    stem, dot, suffix = flat.rpartition(".")
    return f"{(stem or 'video')[:100]}-{content_hash(member)[:8]}{dot}{suffix[:20]}"


def copy_video(source: IO[bytes], uri: str, max_bytes: int) -> None:
    """Write a stream to `uri`, whole or not at all.

    Raises:
        TooLargeError: it goes on after `max_bytes`.
    """
    with atomic_stream(uri) as target:
        copied = 0
        while chunk := source.read(_COPY_BYTES):
            copied += len(chunk)
            if copied > max_bytes:
                raise TooLargeError(f"it has more than {max_bytes} bytes")
            target.write(chunk)


def unpack_shards(
    shards: Sequence[str],
    output: str,
    unpack: Callable[[str, str], Iterator[Found]],
    settings: Mapping[str, object],
    advance: Callable[[], None],
) -> ImportResult:
    """Unpack shards, those that an earlier run has done excepted, and write the manifest.

    Args:
        shards: URIs; a shard that has been replaced since is unpacked again.
        output: folder.
        unpack: of a shard's URI and a folder name in `output`; yields all that is in it.
        settings: what else decides the result.
        advance: called once a shard.

    Raises:
        UserError: `output` cannot be written, or no video is found in any shard.
    """
    output = storage.absolute(output)
    storage.require_writable(output, "Output")
    records = []
    for shard in shards:
        name = f"{safe_name(shard.rsplit('/', 1)[-1])}-{content_hash(shard)[:8]}"
        key = content_hash(shard, storage.version(shard), dict(settings))
        record = storage.join(output, "imported", f"{name}-{key}.parquet")
        if not storage.exists(record):
            _write_record(record, unpack(shard, f"videos/{name}"))
        records.append((shard, record))
        advance()
    return _write_tables(output, records)


def _record_schema() -> "pa.Schema":
    import pyarrow as pa

    return pa.schema([(name, pa.string()) for name in Found._fields])


def _write_record(uri: str, found: Iterator[Found]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{name: value and well_formed(value) for name, value in item._asdict().items()} for item in found]
    table = pa.Table.from_pylist(rows, schema=_record_schema())
    with atomic_stream(uri) as file:
        pq.write_table(table, file)


def _write_tables(output: str, records: Sequence[tuple[str, str]]) -> ImportResult:
    """Join the records of all shards, one at a time."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    def read(record: str) -> "pa.Table":
        filesystem, path = storage.arrow_filesystem(record)
        return pq.read_table(path, filesystem=filesystem)

    # A manifest with the column `caption` promises captions.
    num_captions = 0
    for _, record in records:
        table = read(record)
        num_captions += len(table) - table["caption"].null_count
    names = ["video", "caption"] if num_captions else ["video"]
    text = pa.string()
    error_schema = pa.schema([("shard", text), ("member", text), ("error", text)])
    manifest, errors = storage.join(output, VIDEOS_NAME), storage.join(output, ERRORS_NAME)
    num_videos, num_errors, first_error = 0, 0, ""
    with contextlib.ExitStack() as stack:
        # Errors are opened first, hence closed last but one: the manifest is complete before anyone may read it.
        error_file = stack.enter_context(atomic_stream(errors))
        error_writer = stack.enter_context(pq.ParquetWriter(error_file, error_schema))
        with (
            atomic_stream(manifest) as file,
            pq.ParquetWriter(file, pa.schema([(name, text) for name in names])) as out,
        ):
            for shard, record in records:
                table = read(record)
                failed = table.filter(pc.not_equal(table["error"], ""))
                if len(failed):
                    first_error = first_error or f"{failed['member'][0]}: {failed['error'][0]}"
                    columns = [pa.array([shard] * len(failed), text), failed["member"], failed["error"]]
                    error_writer.write_table(pa.table(columns, schema=error_schema))
                videos = table.filter(pc.equal(table["error"], "")).select(names)
                out.write_table(videos)
                num_videos += len(videos)
                num_errors += len(failed)
            if not num_videos:
                raise UserError(
                    f"{records[0][0]!r}{' and the other shards' if len(records) > 1 else ''}: there is no video to "
                    f"import in there{f' ({first_error})' if first_error else ''}."
                )
    return ImportResult(manifest, num_videos, num_captions, num_errors)
