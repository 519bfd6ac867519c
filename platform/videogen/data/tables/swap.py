"""Compare and swap: a small file changes only if it is still what was read.

That keeps apart two who both believe that they write a table. Locally it is a lock on the folder, which ends with the
process that holds it; on S3 it is a condition of the request, and a storage that knows none lets the last one win.
"""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from videogen import storage


def read(uri: str) -> tuple[bytes | None, str]:
    """Return a file's content and a mark of it, to be given to `swap` or `remove`; (None, "") if it is not there."""
    filesystem, path = storage.fsspec_filesystem(uri)
    try:
        # Asked first: if the file changes in between, the mark is the old one, with which nothing can be swapped.
        mark = str(filesystem.info(path)["ETag"]) if storage.is_remote(uri) else ""
        data = bytes(filesystem.cat_file(path))
    except FileNotFoundError:
        return None, ""
    return data, mark or hashlib.sha256(data).hexdigest()


def swap(uri: str, data: bytes, mark: str) -> bool:
    """Write a file, whole, if it is still what it was when `mark` was read; tell whether it was.

    Raises:
        OSError: the storage failed.
    """
    if not storage.is_remote(uri):
        return _if_unchanged(uri, mark, lambda: storage.write_bytes(uri, data))
    filesystem, path = storage.fsspec_filesystem(uri)
    condition = {"IfMatch": mark} if mark else {"mode": "create"}
    try:
        filesystem.pipe_file(path, data, **condition)
    except OSError:
        there, now = read(uri)
        if there == data:
            return True  # written, but the answer was lost
        if now == mark:
            raise
        return False
    return True


def remove(uri: str, mark: str) -> bool:
    """Remove a file if it is still what it was when `mark` was read; tell whether it was.

    Raises:
        OSError: the storage failed.
    """
    if not storage.is_remote(uri):
        return _if_unchanged(uri, mark, lambda: storage.remove(uri))
    filesystem, path = storage.fsspec_filesystem(uri)
    bucket, _, key = path.partition("/")
    try:
        filesystem.call_s3("delete_object", Bucket=bucket, Key=key, IfMatch=mark)
    except OSError:
        now = read(uri)[1]
        if now != mark:
            return not now  # gone, but the answer was lost; or another's
        filesystem.rm_file(path)  # a storage that refuses conditions here
    return True


def _if_unchanged(uri: str, mark: str, change: Callable[[], object]) -> bool:
    """Change a local file if it is still what it was when `mark` was read; tell whether it was."""
    with _folder_locked(uri):
        if read(uri)[1] != mark:
            return False
        change()
    return True


@contextlib.contextmanager
def _folder_locked(uri: str) -> Iterator[None]:
    """Hold a lock that ends with the process; the file's folder carries it, so that nothing is left behind."""
    folder = Path(storage.absolute(storage.parent(uri)))
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
