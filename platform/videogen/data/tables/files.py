"""Files of a table: names, footers, and writing that is seen whole or not at all."""

import contextlib
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from videogen import storage

logger = logging.getLogger(__name__)
_Record = TypeVar("_Record")

PARTS, SHARDS, COMMITS, INDEX, HISTORY = "parts", "shards", "commits", "index", "history"
"""The folders of a table."""
MANIFEST_NAME, ERRORS_NAME, LEASE_NAME = "manifest.json", "errors.parquet", "lease.json"
SUFFIX = ".parquet"
PARTIAL = ".partial"

_MAGIC = b"PAR1"
_TAIL_BYTES = 64 << 10
"""What is read of a file's end at first; most footers fit."""
_UPLOAD_BYTES = 16 << 20
"""Held in memory for each file that is streamed to S3; times 10,000 it is the largest shard there."""
_FILES_PER_STEP = 2048
"""Files that are waited for before more are asked for, so that memory stays flat."""
PARALLEL_REQUESTS = 16
"""Small requests that are made at once; each is a wait for the storage."""


class ForeignFileError(ValueError):
    """A file that none of our writers can have finished: half written, of something else, or damaged."""


@dataclass(frozen=True)
class Footer:
    """The end of a parquet file, read without its rows."""

    metadata: pq.FileMetaData
    schema: pa.Schema
    """Columns as they were written, without metadata."""
    num_bytes: int

    def note(self, key: bytes) -> bytes:
        """Return what our writer left under `key`.

        Raises:
            ForeignFileError: nothing, so it is no file of ours.
        """
        try:
            return (self.metadata.metadata or {})[key]
        except KeyError:
            raise ForeignFileError(f"it has no {key.decode()!r} in its footer") from None


def read_footer(uri: str) -> Footer:
    """Return the footer of a parquet file, in two requests.

    Raises:
        ForeignFileError: the file is not a whole parquet file.
        OSError: the storage failed, which says nothing of the file; `FileNotFoundError` if it is gone.
    """
    filesystem, path = storage.fsspec_filesystem(uri)
    num_bytes = int(filesystem.info(path)["size"])
    start = max(0, num_bytes - _TAIL_BYTES)
    tail = bytes(filesystem.cat_file(path, start=start, end=num_bytes)) if num_bytes else b""
    if len(tail) < 12 or tail[-4:] != _MAGIC:
        raise ForeignFileError("it does not end as a parquet file does")
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length + len(_MAGIC) > num_bytes:
        raise ForeignFileError("it is shorter than its footer says")
    if length > len(tail):
        tail = bytes(filesystem.cat_file(path, start=num_bytes - length, end=num_bytes))
    try:
        file = pq.ParquetFile(pa.BufferReader(_MAGIC + tail[-length:]))
        return Footer(file.metadata, file.schema_arrow.remove_metadata(), num_bytes)
    except (pa.ArrowException, OSError) as error:  # from memory, so it is the bytes that are wrong
        raise ForeignFileError(f"its footer is damaged ({str(error).splitlines()[0]})") from error


def read_records(names: Sequence[str], read: Callable[[str], _Record]) -> Iterator[_Record]:
    """Yield what `read` returns for each name, in order, many read at a time; files that are not ours are logged."""
    gone: list[str] = []

    def attempt(name: str) -> _Record | None:
        try:
            return read(name)
        except ForeignFileError as error:
            ignore(name, error)
        except FileNotFoundError:
            gone.append(name)
        return None

    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        for start in range(0, len(names), _FILES_PER_STEP):
            found = pool.map(attempt, names[start : start + _FILES_PER_STEP])
            yield from (record for record in found if record is not None)
    if gone:
        logger.warning("%d of %d files were removed while they were read, e.g. %s", len(gone), len(names), gone[0])


def ignore(uri: str, error: ForeignFileError) -> None:
    """Say that a file counts as not being there, and why."""
    logger.warning("%s is ignored: %s", uri, error)


def stem(uri: str) -> str:
    """Return a file's name without folder and suffix."""
    return uri.rsplit("/", 1)[-1].removesuffix(SUFFIX)


def list_stems(folder: str) -> list[str]:
    """Return the names of the parquet files in a folder, sorted; hidden files are those of a writer at work.

    Raises:
        OSError: the folder is there but cannot be listed. (fsspec's own search would call it empty.)
    """
    filesystem, path = storage.fsspec_filesystem(folder)
    try:
        names = filesystem.ls(path, detail=False)
    except FileNotFoundError:
        return []
    return sorted(stem(name) for name in names if name.endswith(SUFFIX) and not stem(name).startswith("."))


def written_at(entry: Mapping[str, Any]) -> float:
    """Return when a listed file was last written, in seconds since 1970 by the storage's own clock."""
    time = entry.get("LastModified", entry.get("mtime", 0.0))
    return time.timestamp() if isinstance(time, datetime) else float(time)


@contextlib.contextmanager
def atomic_stream(uri: str) -> Iterator[IO[bytes]]:
    """Yield a file to write into; `uri` appears whole when the block ends, and not at all if it raises.

    A process that is killed in between leaves a hidden `*.partial` (on S3 an upload that was never completed, which
    no listing shows and which a lifecycle rule of the bucket expires).
    """
    if storage.is_remote(uri):
        with _remote_stream(uri) as file:
            yield file
        return
    target = Path(storage.absolute(uri))
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _remote_stream(uri: str) -> Iterator[IO[bytes]]:
    filesystem, path = storage.fsspec_filesystem(uri)
    # Closing would otherwise complete the upload of whatever was written before an error.
    file: Any = filesystem.open(path, "wb", block_size=_UPLOAD_BYTES, autocommit=False)
    try:
        yield file
    except BaseException:
        if file.mpu is not None:
            file.discard()
        file.closed = True  # or the collector would flush what was discarded
        raise
    file.close()
    file.commit()


def remove_files(uris: Sequence[str]) -> None:
    """Remove files, several at a time; those that are gone already are no error."""

    def remove(uri: str) -> None:
        filesystem, path = storage.fsspec_filesystem(uri)
        with contextlib.suppress(FileNotFoundError):
            filesystem.rm_file(path)

    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        for start in range(0, len(uris), _FILES_PER_STEP):
            for _ in pool.map(remove, uris[start : start + _FILES_PER_STEP]):
                pass
