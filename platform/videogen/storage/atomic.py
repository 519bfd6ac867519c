"""Atomic changes of files: whole-file streams, parallel removal, and compare-and-swap, on local disks and on S3."""

import contextlib
import fcntl
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from videogen.hashing import short_hash
from videogen.storage.files import remove, write_bytes
from videogen.storage.filesystems import fsspec_filesystem
from videogen.storage.uris import absolute, is_remote, parent

PARTIAL = ".partial"
"""Suffix of hidden files that are being written."""

_UPLOAD_BYTES = 16 << 20
"""Part size of a multipart upload, held in memory per file; S3 allows 10,000 parts per object."""
_PARALLEL_REQUESTS = 16
_FILES_PER_STEP = 2048
"""Files requested before waiting for all of them, which bounds memory."""


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
    if is_remote(uri):
        with _remote_stream(uri) as file:
            yield file
        return
    target = Path(absolute(uri))
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
    filesystem, path = fsspec_filesystem(uri)
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
        filesystem, path = fsspec_filesystem(uri)
        with contextlib.suppress(FileNotFoundError):
            filesystem.rm_file(path)

    with ThreadPoolExecutor(_PARALLEL_REQUESTS) as pool:
        for start in range(0, len(uris), _FILES_PER_STEP):
            for _ in pool.map(remove, uris[start : start + _FILES_PER_STEP]):
                pass


# --- compare-and-swap ------------------------------------------------------------------------------------------------
#
# Locally, a lock on the folder makes the change atomic; the lock ends with its process. On S3, a conditional request
# does. A storage without conditional requests lets the last writer win.


def read_versioned(uri: str) -> tuple[bytes | None, str]:
    """Return a file's content and its version, for `replace_if_unchanged`; (None, "") if it does not exist."""
    filesystem, path = fsspec_filesystem(uri)
    try:
        # The version is read first: if the file changes in between, the stale version makes any swap fail.
        version = str(filesystem.info(path)["ETag"]) if is_remote(uri) else ""
        data = bytes(filesystem.cat_file(path))
    except FileNotFoundError:
        return None, ""
    return data, version or short_hash(data, digits=64)


def replace_if_unchanged(uri: str, data: bytes, version: str) -> bool:
    """Replace a file if it still has this version ("": if it does not exist); return whether it was replaced.

    Raises:
        OSError: the storage failed.
    """
    if not is_remote(uri):
        return _if_unchanged(uri, version, lambda: write_bytes(uri, data))
    filesystem, path = fsspec_filesystem(uri)
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
    if not is_remote(uri):
        return _if_unchanged(uri, version, lambda: remove(uri))
    filesystem, path = fsspec_filesystem(uri)
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
    folder = Path(absolute(parent(uri)))
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
