"""Files of a table: names, parquet footers, atomic writes and compare-and-swap, on local disks and on S3."""

import contextlib
import fcntl
import hashlib
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
"""Folders of a table."""
MANIFEST_NAME, ERRORS_NAME, LEASE_NAME = "manifest.json", "errors.parquet", "lease.json"
SUFFIX = ".parquet"
PARTIAL = ".partial"

_MAGIC = b"PAR1"
_TAIL_BYTES = 64 << 10
"""Size of the first read at the end of a file; most footers fit."""
_UPLOAD_BYTES = 16 << 20
"""Part size of a multipart upload, held in memory per file; S3 allows 10,000 parts per object."""
_FILES_PER_STEP = 2048
"""Files requested before waiting for all of them, which bounds memory."""
PARALLEL_REQUESTS = 16
"""Concurrent small requests; each mostly waits for the storage."""


class ForeignFileError(ValueError):
    """A file that none of our writers completed: truncated, damaged, or written by other software."""


# --- parquet footers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Footer:
    """Footer of a parquet file, read without its rows."""

    metadata: pq.FileMetaData
    schema: pa.Schema
    """Columns of the file, without key-value metadata."""
    num_bytes: int

    def metadata_value(self, key: bytes) -> bytes:
        """Return the key-value metadata entry that our writer stored under `key`.

        Raises:
            ForeignFileError: there is none, so another writer made the file.
        """
        entries: dict[bytes, bytes] = self.metadata.metadata or {}
        try:
            return entries[key]
        except KeyError:
            raise ForeignFileError(f"it has no {key.decode()!r} in its footer") from None


def read_footer(uri: str) -> Footer:
    """Read the footer of a parquet file, in two requests.

    Raises:
        ForeignFileError: the file is not a complete parquet file.
        OSError: the storage failed, which says nothing about the file; `FileNotFoundError` if it does not exist.
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
    except (pa.ArrowException, OSError) as error:  # read from memory, so the bytes themselves are invalid
        raise ForeignFileError(f"its footer is damaged ({str(error).splitlines()[0]})") from error


def read_records(names: Sequence[str], read: Callable[[str], _Record]) -> Iterator[_Record]:
    """Yield `read(name)` for each name, in order, with parallel requests; log and skip foreign and removed files."""
    gone: list[str] = []

    def attempt(name: str) -> _Record | None:
        try:
            return read(name)
        except ForeignFileError as error:
            log_ignored(name, error)
        except FileNotFoundError:
            gone.append(name)
        return None

    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        for start in range(0, len(names), _FILES_PER_STEP):
            found = pool.map(attempt, names[start : start + _FILES_PER_STEP])
            yield from (record for record in found if record is not None)
    if gone:
        logger.warning("%d of %d files were removed while they were read, e.g. %s", len(gone), len(names), gone[0])


def log_ignored(uri: str, error: ForeignFileError) -> None:
    """Log that a file is treated as missing, and why."""
    logger.warning("%s is ignored: %s", uri, error)


# --- names -----------------------------------------------------------------------------------------------------------


def stem(uri: str) -> str:
    """Return a file name without folder and suffix."""
    return uri.rsplit("/", 1)[-1].removesuffix(SUFFIX)


def list_stems(folder: str) -> list[str]:
    """Return the sorted names of the parquet files in a folder, without hidden files, which are unfinished writes.

    Raises:
        OSError: the folder exists but cannot be listed. (fsspec's `find` would return an empty list.)
    """
    filesystem, path = storage.fsspec_filesystem(folder)
    try:
        names = filesystem.ls(path, detail=False)
    except FileNotFoundError:
        return []
    return sorted(stem(name) for name in names if name.endswith(SUFFIX) and not stem(name).startswith("."))


def modified_at(entry: Mapping[str, Any]) -> float:
    """Return the modification time of a listed file, in seconds since 1970 by the storage's clock."""
    time = entry.get("LastModified", entry.get("mtime", 0.0))
    return time.timestamp() if isinstance(time, datetime) else float(time)


# --- atomic writes ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_stream(uri: str) -> Iterator[IO[bytes]]:
    """Open a file for writing that appears under `uri` when the block ends, and not at all if the block raises.

    A process that is killed in the block leaves a hidden `*.partial` file, or on S3 an incomplete multipart upload,
    which no listing shows and which a lifecycle rule of the bucket can expire.
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
    # Without autocommit=False, closing after an error would complete the upload of a truncated file.
    file: Any = filesystem.open(path, "wb", block_size=_UPLOAD_BYTES, autocommit=False)
    try:
        yield file
    except BaseException:
        if file.mpu is not None:
            file.discard()
        file.closed = True  # otherwise the garbage collector flushes the discarded buffer
        raise
    file.close()
    file.commit()


def remove_files(uris: Sequence[str]) -> None:
    """Remove files with parallel requests; files that do not exist are ignored."""

    def remove(uri: str) -> None:
        filesystem, path = storage.fsspec_filesystem(uri)
        with contextlib.suppress(FileNotFoundError):
            filesystem.rm_file(path)

    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        for start in range(0, len(uris), _FILES_PER_STEP):
            for _ in pool.map(remove, uris[start : start + _FILES_PER_STEP]):
                pass


# --- compare-and-swap ------------------------------------------------------------------------------------------------
#
# Locally, a lock on the folder makes the change atomic; the lock ends with its process. On S3, a conditional request
# does. A storage without conditional requests lets the last writer win.


def read_versioned(uri: str) -> tuple[bytes | None, str]:
    """Return a file's content and its version, for `replace_if_unchanged`; (None, "") if it does not exist."""
    filesystem, path = storage.fsspec_filesystem(uri)
    try:
        # The version is read first: if the file changes in between, the stale version makes any swap fail.
        version = str(filesystem.info(path)["ETag"]) if storage.is_remote(uri) else ""
        data = bytes(filesystem.cat_file(path))
    except FileNotFoundError:
        return None, ""
    return data, version or hashlib.sha256(data).hexdigest()


def replace_if_unchanged(uri: str, data: bytes, version: str) -> bool:
    """Replace a file if it still has this version ("": if it does not exist); return whether it was replaced.

    Raises:
        OSError: the storage failed.
    """
    if not storage.is_remote(uri):
        return _if_unchanged(uri, version, lambda: storage.write_bytes(uri, data))
    filesystem, path = storage.fsspec_filesystem(uri)
    condition = {"IfMatch": version} if version else {"mode": "create"}
    try:
        filesystem.pipe_file(path, data, **condition)
    except OSError:
        current, current_version = read_versioned(uri)
        if current == data:
            return True  # the write succeeded but its response was lost
        if current_version == version:
            raise
        return False
    return True


def remove_if_unchanged(uri: str, version: str) -> bool:
    """Remove a file if it still has this version; return whether it was removed.

    Raises:
        OSError: the storage failed.
    """
    if not storage.is_remote(uri):
        return _if_unchanged(uri, version, lambda: storage.remove(uri))
    filesystem, path = storage.fsspec_filesystem(uri)
    bucket, _, key = path.partition("/")
    try:
        filesystem.call_s3("delete_object", Bucket=bucket, Key=key, IfMatch=version)
    except OSError:
        current_version = read_versioned(uri)[1]
        if current_version != version:
            return not current_version  # removed with the response lost, or replaced by another writer
        filesystem.rm_file(path)  # a storage that rejects conditional deletes
    return True


def _if_unchanged(uri: str, version: str, change: Callable[[], object]) -> bool:
    with _folder_locked(uri):
        if read_versioned(uri)[1] != version:
            return False
        change()
    return True


@contextlib.contextmanager
def _folder_locked(uri: str) -> Iterator[None]:
    """Hold an flock on the file's folder; a lock file would stay behind."""
    folder = Path(storage.absolute(storage.parent(uri)))
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
