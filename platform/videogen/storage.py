"""URIs to bytes: local paths, `file://` and `s3://` behind one set of functions.

S3 is configured by the standard variables only (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, ...), so no secret
ever passes through an option, a config file or a log.
"""

import contextlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videogen.errors import UserError

if TYPE_CHECKING:
    import fsspec
    import pyarrow.fs

_S3 = "s3://"
_FILE = "file://"
_ATTEMPTS = 6
"""Of a request, with up to 1, 2, 4, 8 and 16 s in between: an object store that stumbles must not end a run of days."""
_FIRST_ATTEMPTS = 3
"""Of a request before any work: a server that does not answer must be reported within seconds."""


def is_remote(uri: str) -> bool:
    """Tell whether `uri` lives on S3."""
    return str(uri).startswith(_S3)


def absolute(uri: str) -> str:
    """Return `uri` so that it means the same in a worker with another working directory."""
    uri = str(uri)
    if is_remote(uri):
        if not uri.removeprefix(_S3).strip("/"):
            raise UserError(f"{uri!r} names no bucket: write s3://BUCKET/FOLDER.")
        return uri.rstrip("/")
    scheme, separator, _ = uri.partition("://")
    if separator and scheme != "file":
        raise UserError(f"{uri!r} has the scheme {scheme!r}://, but only local paths, file:// and s3:// are supported.")
    return os.path.abspath(os.path.expanduser(uri.removeprefix(_FILE)))


def join(uri: str, *parts: str) -> str:
    """Join path segments onto a URI."""
    return "/".join([str(uri).rstrip("/"), *(str(part).strip("/") for part in parts)])


def parent(uri: str) -> str:
    """Return the folder that holds `uri`; as with paths, a root (here also a whole bucket) is its own."""
    uri = absolute(uri)
    if not is_remote(uri):
        return os.path.dirname(uri)
    bucket, _, key = uri.removeprefix(_S3).partition("/")
    return join(f"{_S3}{bucket}", *key.split("/")[:-1])


def require_parent(uri: str, what: str) -> str:
    """Return the folder that holds `uri`; raise `UserError` if `uri` is a whole bucket, beside which nothing can be."""
    folder = parent(uri)
    if is_remote(uri) and folder == absolute(uri):
        raise UserError(
            f"{what} {uri!r} is a whole bucket, and a folder in one is needed: give e.g. {join(uri, 'model')!r}."
        )
    return folder


def version(uri: str) -> str:
    """Return a mark that changes when the file does, from its size and time (on S3: ETag); "" if there is no file."""
    filesystem, path = fsspec_filesystem(uri)
    try:
        entry = filesystem.info(path)
    except FileNotFoundError:
        return ""
    return f"{entry['size']} {entry.get('ETag') or entry.get('mtime')}"


def fsspec_filesystem(uri: str, patient: bool = True) -> tuple["fsspec.AbstractFileSystem", str]:
    """Return the fsspec filesystem of `uri` and the path in it.

    Args:
        uri: what is to be read or written.
        patient: whether S3 may take its time: half a minute of stumbling is overcome, and what is not becomes a
            `StorageError`. Otherwise errors come as they are, within seconds.
    """
    import fsspec

    if is_remote(uri):
        retries = {"mode": "standard", "max_attempts": _ATTEMPTS if patient else _FIRST_ATTEMPTS}
        options: dict[str, Any] = {
            # Listings must show what another process has just written, so nothing is cached.
            "use_listings_cache": False,
            "config_kwargs": {"connect_timeout": 5, "retries": retries},
            # Said although boto3 reads it too: filesystems are kept by their options, and another server is another.
            "endpoint_url": os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"),
        }
        path = uri.removeprefix(_S3).rstrip("/")
        if not patient:
            return fsspec.filesystem("s3", **options), path
        from videogen._s3 import RetryingS3FileSystem

        return RetryingS3FileSystem(**options), path
    return fsspec.filesystem("file"), absolute(uri)


def arrow_filesystem(uri: str) -> tuple["pyarrow.fs.FileSystem", str]:
    """Return the pyarrow filesystem of `uri` (s3fs underneath for S3) and the path in it."""
    import pyarrow.fs

    if is_remote(uri):
        filesystem, path = fsspec_filesystem(uri)
        return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(filesystem)), path
    return pyarrow.fs.LocalFileSystem(), absolute(uri)


def exists(uri: str) -> bool:
    """Tell whether a file or a non-empty folder is at `uri`."""
    filesystem, path = fsspec_filesystem(uri)
    return bool(filesystem.exists(path))


def is_dir(uri: str) -> bool:
    """Tell whether `uri` is a folder."""
    filesystem, path = fsspec_filesystem(uri)
    return bool(filesystem.isdir(path))


def list_files(uri: str, suffixes: Sequence[str] | None = None) -> list[str]:
    """Return the URIs of all files under `uri`, sorted, optionally only those that end in one of `suffixes`."""
    filesystem, path = fsspec_filesystem(uri)
    found = sorted(filesystem.find(path))
    wanted = tuple(suffix.lower() for suffix in suffixes) if suffixes else ("",)
    return [_as_uri(uri, item) for item in found if item.lower().endswith(wanted)]


def list_dirs(uri: str) -> list[str]:
    """Return the URIs of the folders directly under `uri`, sorted."""
    filesystem, path = fsspec_filesystem(uri)
    if not filesystem.isdir(path):
        return []
    entries = filesystem.ls(path, detail=True)
    return sorted(_as_uri(uri, entry["name"]) for entry in entries if entry["type"] == "directory")


def _as_uri(like: str, path: str) -> str:
    return f"{_S3}{path}" if is_remote(like) else path


def read_bytes(uri: str) -> bytes:
    """Return a file's content."""
    filesystem, path = fsspec_filesystem(uri)
    return bytes(filesystem.cat_file(path))


def read_text(uri: str) -> str:
    """Return a UTF-8 file's content."""
    return read_bytes(uri).decode()


def read_json(uri: str) -> Any:
    """Return a JSON file's content.

    Raises:
        UserError: it is not JSON: cut off, or edited by hand.
    """
    try:
        return json.loads(read_bytes(uri))
    except (ValueError, RecursionError) as error:  # of JSON, of UTF-8, or nested without end
        raise UserError(
            f"{uri!r} is not JSON ({error}): put back a whole one, or remove it and run the job that wrote it again."
        ) from error


def write_bytes(uri: str, data: bytes) -> None:
    """Write a file whole: a reader sees the old content or the new, never a part."""
    if is_remote(uri):
        filesystem, path = fsspec_filesystem(uri)
        filesystem.pipe_file(path, data)
        return
    target = Path(absolute(uri))
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def write_if_changed(uri: str, data: bytes) -> None:
    """Write a file whole unless it has this content: a new time would count as new input to what was made from it."""
    if not exists(uri) or read_bytes(uri) != data:
        write_bytes(uri, data)


def write_text(uri: str, text: str) -> None:
    """Write a UTF-8 file whole."""
    write_bytes(uri, text.encode())


def write_json(uri: str, value: Any) -> None:
    """Write a JSON file whole, readable by people."""
    write_text(uri, json.dumps(value, indent=2) + "\n")


def remove(uri: str) -> None:
    """Remove a file or a folder, if it is there."""
    filesystem, path = fsspec_filesystem(uri)
    if filesystem.exists(path):
        filesystem.rm(path, recursive=True)


@contextlib.contextmanager
def local_copy(uri: str, exclude: Sequence[str] = ()) -> Iterator[Path]:
    """Yield a local path with the content of the file or folder `uri`; local ones are used where they are.

    Args:
        uri: what to copy.
        exclude: beginnings of paths in the folder that are not copied, e.g. "training/".
    """
    if not is_remote(uri):
        yield Path(absolute(uri))
        return
    filesystem, path = fsspec_filesystem(uri)
    with tempfile.TemporaryDirectory(prefix="videogen-") as folder:
        target = Path(folder) / path.rsplit("/", 1)[-1]
        if filesystem.isdir(path):
            for item in filesystem.find(path):
                name = item.removeprefix(f"{path}/")
                if name.startswith(tuple(exclude)):
                    continue
                local = target / name
                local.parent.mkdir(parents=True, exist_ok=True)
                filesystem.get_file(item, str(local))
        else:
            filesystem.get_file(path, str(target))
        yield target


def upload(local: str | Path, uri: str) -> None:
    """Copy a local file or folder to `uri`, replacing what is there: of a folder, also files that the new one lacks."""
    local = Path(local)
    if not is_remote(uri):
        target = Path(absolute(uri))
        if local.is_dir():
            # Copied beside and renamed, so that a folder is never seen half replaced by a reader that starts later.
            partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
            shutil.copytree(local, partial)
            shutil.rmtree(target, ignore_errors=True)
            partial.replace(target)
        else:
            write_bytes(uri, local.read_bytes())
        return
    filesystem, path = fsspec_filesystem(uri)
    if not local.is_dir():
        filesystem.put_file(str(local), path)
        return
    before = set(filesystem.find(path))
    stale = before - _put_files(local, uri)
    if stale:
        filesystem.rm(sorted(stale))


def add_files(local: str | Path, uri: str) -> None:
    """Copy the files of a local folder into the folder `uri`, beside what is there."""
    if is_remote(uri):
        _put_files(Path(local), uri)
    else:
        shutil.copytree(local, absolute(uri), dirs_exist_ok=True)


def _put_files(local: Path, uri: str) -> set[str]:
    """Copy the files of a local folder to S3; return their paths there."""
    filesystem, path = fsspec_filesystem(uri)
    written = set()
    for item in sorted(local.rglob("*")):
        if item.is_file():
            name = f"{path}/{item.relative_to(local)}"
            filesystem.put_file(str(item), name)
            written.add(name)
    return written


def require_readable(uri: str, what: str) -> None:
    """Raise `UserError` in one sentence unless something readable is at `uri`; `what` names it for the reader."""
    with _explained(uri, what, "read"):
        _require_some(uri, what)
        filesystem, path = fsspec_filesystem(uri, patient=False)
        if filesystem.isfile(path):
            filesystem.cat_file(path, start=0, end=1)
            return
        if not filesystem.exists(path):
            raise UserError(f"{what} {uri!r} does not exist: check the spelling, or create it first.")
        if not filesystem.ls(path, detail=False):
            raise UserError(f"{what} {uri!r} is an empty folder: put its files there, or give another URI.")


def require_writable(uri: str, what: str) -> None:
    """Raise `UserError` in one sentence unless files can be written under the folder `uri`; leave nothing behind."""
    with _explained(uri, what, "write"):
        _require_some(uri, what)
        folder = absolute(uri)
        if not is_remote(folder):
            # Not made for the sake of the question: what is refused for another reason should leave no trace.
            folder = _nearest_existing(folder)
        probe = join(folder, f".writable-{uuid.uuid4().hex}")
        if is_remote(probe):
            filesystem, path = fsspec_filesystem(probe, patient=False)
            filesystem.pipe_file(path, b"")
            filesystem.rm_file(path)
            return
        write_bytes(probe, b"")
        remove(probe)


def _require_some(uri: str, what: str) -> None:
    """Refuse the empty text that a variable without a value leaves, which would mean the current folder."""
    if not str(uri).removeprefix(_FILE).strip():
        raise UserError(f"{what} is empty: give a path or an s3:// URI.")
    absolute(uri)


def _nearest_existing(path: str) -> str:
    """Return `path`, or the folder above it that is there."""
    while True:
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):  # and not a name that is too long, which no folder can have
            path = os.path.dirname(path)
        else:
            return path


@contextlib.contextmanager
def _explained(uri: str, what: str, verb: str) -> Iterator[None]:
    """Turn the many exceptions of filesystems into one sentence with the likely cure."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # fsspec, botocore and aiohttp share no base class for "it did not work"
        reason = " ".join(str(error).split()) or type(error).__name__
        if is_remote(uri):
            cure = (
                "check the bucket's name and the variables AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY"
            )
        else:
            cure = "check that it is a folder and its permissions"
        raise UserError(f"Cannot {verb} {what} {uri!r} ({reason.rstrip('.')}): {cure}.") from error
