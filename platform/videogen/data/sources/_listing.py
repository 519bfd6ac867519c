"""Files of a folder or an S3 prefix, in order and without holding them all: a listing is as long as a corpus is.

The order is that of the paths' UTF-8 bytes. It is the order in which S3 lists, so nothing is sorted there, and on disk
one folder at a time is.
"""

import bisect
import contextlib
import errno
import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from videogen import storage
from videogen.errors import StorageError, UserError

if TYPE_CHECKING:
    import fsspec

_NAMES_AT_ONCE = 65536
"""Names of one folder that are Python objects at a time; the rest are packed."""
_NUM_LISTERS = 16
"""S3 listings that run side by side; each mostly waits."""
_MIN_KEYS_A_LISTER = 256
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG)
"""Answers about a file; a disk that says anything else, such as "stale file handle", has not answered."""


class Entry(NamedTuple):
    """One file."""

    path: str
    """Relative to the folder that was listed."""
    uri: str
    version: str
    """Changes when the file is replaced: its ETag, or size and modification time; "" if there is no such file."""
    size_bytes: int | None


def list_files(uri: str, what: str = "Input") -> Iterator[Entry]:
    """Yield every file under the folder `uri`, sorted by path.

    Links to files and folders are followed; a folder that holds a link to one that it lies in is entered once.

    Raises:
        UserError: it cannot be listed, or not in order (S3 directory buckets).
    """
    with explained(uri, what):
        yield from _list_s3(uri, what) if storage.is_remote(uri) else _list_local(uri)


def find_versions(uris: Sequence[str], what: str = "Input") -> list[tuple[str, int | None]]:
    """Return version and bytes of each file; ("", None) of one that is not there.

    On S3 the neighbourhood of the files is listed instead of asking for each of them: files that lie together come a
    thousand a request, and never does it take more requests than files.

    Raises:
        UserError: a bucket cannot be listed.
    """
    found: dict[str, tuple[str, int | None]] = {}
    remote = sorted({uri for uri in uris if storage.is_remote(uri)})
    for bucket, group in itertools.groupby(remote, key=lambda uri: uri.split("/", 3)[2]):
        with explained(f"s3://{bucket}", what):
            found |= _find_in_bucket(bucket, list(group))
    return [found.get(uri, ("", None)) if storage.is_remote(uri) else _stat(uri) for uri in uris]


@contextlib.contextmanager
def explained(uri: str, what: str) -> Iterator[None]:
    """Turn what filesystems raise while listing into one sentence."""
    try:
        yield
    except UserError:
        raise
    except _failures(uri) as error:
        # Of a local path, strerror has the reason without the path; of S3 there is only the message.
        reason = " ".join(str(getattr(error, "strerror", None) or error).split()).rstrip(".")
        place = getattr(error, "filename", None) or uri
        cure = "the variables AWS_*, and that its files may be listed" if storage.is_remote(uri) else "its permissions"
        raise UserError(f"Cannot list {what} {place!r} ({reason}): check {cure}.") from error


def _failures(uri: str) -> tuple[type[Exception], ...]:
    if not storage.is_remote(uri):
        return (OSError,)
    from botocore.exceptions import BotoCoreError

    return (OSError, BotoCoreError)


# --- local -------------------------------------------------------------------------------------------------------


def _list_local(root: str) -> Iterator[Entry]:
    for path in _walk(root, "", ()):
        location = f"{root.rstrip('/')}/{path}"
        yield Entry(path, location, *_stat(location))


def _walk(root: str, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    folder = Path(root, prefix)
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    for name in _sorted_names(folder):
        if name.endswith("/"):
            yield from _walk(root, prefix + name, (*above, identity))
        else:
            yield prefix + name


def _sorted_names(folder: Path) -> Iterator[str]:
    """Yield the names in one folder; those of folders end in "/", which puts what is in them where it belongs."""
    import pyarrow as pa

    with os.scandir(folder) as entries:
        names = (_utf8(entry.name) + ("/" if entry.is_dir() else "") for entry in entries)
        chunks = [pa.array(chunk, pa.string()) for chunk in _chunked(names)]
    table = pa.table({"name": pa.chunked_array(chunks, pa.string())}).sort_by("name")
    for batch in table.to_batches(max_chunksize=4096):
        yield from batch.column(0).to_pylist()


def _chunked(names: Iterator[str]) -> Iterator[list[str]]:
    while chunk := list(itertools.islice(names, _NAMES_AT_ONCE)):
        yield chunk


def _utf8(name: str) -> str:
    """Return a name that can be written down; one that is no UTF-8 is spelled out, and fails when it is opened."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _stat(uri: str) -> tuple[str, int | None]:
    try:
        status = Path(uri).stat()
    except ValueError:  # a NUL in the name
        return "", None
    except OSError as error:
        if error.errno in _ABSENT:
            return "", None
        raise StorageError(
            f"{uri!r} cannot be looked at ({error.strerror}): check the disk, then run the same command again."
        ) from error
    return f"{status.st_size}-{status.st_mtime}", status.st_size


# --- S3 ----------------------------------------------------------------------------------------------------------


def _list_s3(uri: str, what: str) -> Iterator[Entry]:
    filesystem, path = storage.fsspec_filesystem(uri)
    bucket, key, _ = filesystem.split_path(path)
    prefix = f"{key}/" if key else ""
    last = ""
    for page in _pages(filesystem, bucket, prefix):
        for item in page:
            name = item["Key"]
            if name <= last:
                raise UserError(
                    f"{what} {uri!r} lists its objects out of order, as S3 directory buckets do: name the videos in a "
                    f"manifest (parquet, csv or jsonl) instead."
                )
            last = name
            if not name.endswith("/"):
                yield Entry(name.removeprefix(prefix), f"s3://{bucket}/{name}", item["ETag"], item["Size"])


def _pages(filesystem: "fsspec.AbstractFileSystem", bucket: str, prefix: str) -> Iterator[list[dict[str, Any]]]:
    # s3fs's own `find` returns a dictionary of the whole listing.
    arguments = {"Bucket": bucket, "Prefix": prefix}
    while True:
        page = filesystem.call_s3("list_objects_v2", **arguments)
        yield page.get("Contents", [])
        if not page.get("IsTruncated"):
            return
        arguments["ContinuationToken"] = page["NextContinuationToken"]


def _find_in_bucket(bucket: str, uris: list[str]) -> dict[str, tuple[str, int | None]]:
    filesystem, _ = storage.fsspec_filesystem(f"s3://{bucket}")
    start = len(f"s3://{bucket}/")
    keys = sorted(uri[start:] for uri in uris)
    size = max(_MIN_KEYS_A_LISTER, -(-len(keys) // _NUM_LISTERS))
    parts = [keys[index : index + size] for index in range(0, len(keys), size)]
    with ThreadPoolExecutor(len(parts)) as pool:
        found = pool.map(lambda part: _find_keys(filesystem, bucket, part), parts)
        return {f"s3://{bucket}/{key}": value for part in found for key, value in part.items()}


def _find_keys(
    filesystem: "fsspec.AbstractFileSystem", bucket: str, keys: list[str]
) -> dict[str, tuple[str, int | None]]:
    """Return version and bytes of those of `keys`, which are sorted, that exist.

    A page of the listing settles all keys up to its last one; the next page starts just before the next open key.
    """
    wanted = set(keys)
    found: dict[str, tuple[str, int | None]] = {}
    prefix = os.path.commonprefix([keys[0], keys[-1]])  # noqa: RUF071 - of keys it may end within a name
    arguments = {"Bucket": bucket, "Prefix": prefix}
    open_from, last = 0, ""
    while open_from < len(keys):
        # Without its last character a key comes before itself, with next to nothing between.
        after = max(keys[open_from][:-1], last)
        page = filesystem.call_s3("list_objects_v2", **arguments, **({"StartAfter": after} if after else {}))
        contents = page.get("Contents", [])
        found |= {item["Key"]: (item["ETag"], item["Size"]) for item in contents if item["Key"] in wanted}
        if not page.get("IsTruncated"):
            break
        last = contents[-1]["Key"]
        open_from = bisect.bisect_right(keys, last)
    return found
