"""Recursive file listing of a folder or an S3 prefix as a sorted stream, in bounded memory.

Paths are ordered by their UTF-8 bytes. S3 lists in this order, so only local folders are sorted, one at a time.
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
"""File names of one folder that are Python objects at a time; the others are in Arrow arrays."""
_NUM_LISTERS = 16
"""Concurrent S3 listings; they are bound by latency."""
_MIN_KEYS_A_LISTER = 256
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG)
"""Errors that mean that a file does not exist or is not accessible; others, e.g. ESTALE, are storage failures."""


class Entry(NamedTuple):
    """One file."""

    path: str
    """Relative to the listed folder."""
    uri: str
    version: str
    """Changes when the file is replaced: its ETag, or size and modification time; "" for a missing file."""
    size_bytes: int | None


def list_files(uri: str, what: str = "Input") -> Iterator[Entry]:
    """Yield every file under the folder `uri`, sorted by path.

    Symbolic links are followed, without recursing into a folder's own ancestors.

    Raises:
        UserError: it cannot be listed, or not in order (S3 directory buckets).
    """
    with explained(uri, what):
        yield from _list_s3(uri, what) if storage.is_remote(uri) else _list_local(uri)


def find_versions(uris: Sequence[str], what: str = "Input") -> list[tuple[str, int | None]]:
    """Return the version and size in bytes of each file; ("", None) for a missing file.

    On S3, ranges of keys are listed instead of querying each file: neighbouring files arrive 1000 a request, and there
    are never more requests than files.

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
    """Convert filesystem errors during a listing to a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except _failures(uri) as error:
        # For local paths, strerror is the reason without the path; S3 errors only have a message.
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
    """Yield the sorted names in one folder. Folder names end in "/", so their content sorts into the right place."""
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
    """Return a file name as valid UTF-8; bytes that are not are escaped, and opening such a file fails."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _stat(uri: str) -> tuple[str, int | None]:
    try:
        status = Path(uri).stat()
    except ValueError:  # NUL in the name
        return "", None
    except OSError as error:
        if error.errno in _ABSENT:
            return "", None
        raise StorageError(
            f"{uri!r} cannot be accessed ({error.strerror}): check the disk, then run the same command again."
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
    # s3fs's own `find` holds the whole listing in memory.
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
    """Return the version and size of those of the sorted `keys` that exist.

    A page of the listing resolves all keys up to its last one; the next page starts just before the next open key.
    """
    wanted = set(keys)
    found: dict[str, tuple[str, int | None]] = {}
    prefix = os.path.commonprefix([keys[0], keys[-1]])  # noqa: RUF071 - a key prefix may end within a name
    arguments = {"Bucket": bucket, "Prefix": prefix}
    open_from, last = 0, ""
    while open_from < len(keys):
        # A key without its last character sorts just before the key, with almost nothing in between.
        after = max(keys[open_from][:-1], last)
        page = filesystem.call_s3("list_objects_v2", **arguments, **({"StartAfter": after} if after else {}))
        contents = page.get("Contents", [])
        found |= {item["Key"]: (item["ETag"], item["Size"]) for item in contents if item["Key"] in wanted}
        if not page.get("IsTruncated"):
            break
        last = contents[-1]["Key"]
        open_from = bisect.bisect_right(keys, last)
    return found
