"""File operations by URI: list, read, write atomically, copy."""

import contextlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from videogen.errors import UserError
from videogen.storage.filesystems import fsspec_filesystem
from videogen.storage.uris import S3_SCHEME, absolute, is_remote


def exists(uri: str) -> bool:
    """Return whether a file or a non-empty folder is at `uri`."""
    filesystem, path = fsspec_filesystem(uri)
    return bool(filesystem.exists(path))


def is_dir(uri: str) -> bool:
    """Return whether `uri` is a folder."""
    filesystem, path = fsspec_filesystem(uri)
    return bool(filesystem.isdir(path))


def list_files(uri: str, suffixes: Sequence[str] | None = None) -> list[str]:
    """Return the URIs of all files under `uri`, sorted; with `suffixes`, only files that end in one of them."""
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
    return f"{S3_SCHEME}{path}" if is_remote(like) else path


def version(uri: str) -> str:
    """Return a version that changes with the file: size, and time or (on S3) ETag; "" if there is no file."""
    filesystem, path = fsspec_filesystem(uri)
    try:
        entry = filesystem.info(path)
    except FileNotFoundError:
        return ""
    return f"{entry['size']} {entry.get('ETag') or entry.get('mtime')}"


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
        UserError: the file is not valid JSON.
    """
    try:
        return json.loads(read_bytes(uri))
    except (ValueError, RecursionError) as error:  # invalid JSON, invalid UTF-8, or too deeply nested
        raise UserError(
            f"{uri!r} is not JSON ({error}): restore a complete file, or remove it and run the job that wrote it again."
        ) from error


def write_bytes(uri: str, data: bytes) -> None:
    """Write a file atomically: a reader sees the old content or the new content, never a part."""
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
    """Write a file atomically unless it has this content already: a new version would invalidate what depends on it."""
    if not exists(uri) or read_bytes(uri) != data:
        write_bytes(uri, data)


def write_text(uri: str, text: str) -> None:
    """Write a UTF-8 file atomically."""
    write_bytes(uri, text.encode())


def write_json(uri: str, value: object) -> None:
    """Write an indented JSON file atomically."""
    write_text(uri, json.dumps(value, indent=2) + "\n")


def remove(uri: str) -> None:
    """Remove a file or folder if it exists."""
    filesystem, path = fsspec_filesystem(uri)
    if filesystem.exists(path):
        filesystem.rm(path, recursive=True)


@contextlib.contextmanager
def local_copy(uri: str, exclude: Sequence[str] = ()) -> Iterator[Path]:
    """Yield a local path with the content of the file or folder `uri`; a local one is not copied.

    Args:
        uri: file or folder.
        exclude: path prefixes in the folder to leave out, e.g. "training/".
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
    """Copy a local file or folder to `uri`, replacing it: files that the new folder lacks are removed."""
    local = Path(local)
    if not is_remote(uri):
        target = Path(absolute(uri))
        if local.is_dir():
            # Copied to a temporary name and renamed, so that no reader opens a partly replaced folder.
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
    """Copy the files of a local folder into the folder `uri`; other files there are kept."""
    if is_remote(uri):
        _put_files(Path(local), uri)
    else:
        shutil.copytree(local, absolute(uri), dirs_exist_ok=True)


def _put_files(local: Path, uri: str) -> set[str]:
    """Copy the files of a local folder to S3 and return their paths there."""
    filesystem, path = fsspec_filesystem(uri)
    written = set()
    for item in sorted(local.rglob("*")):
        if item.is_file():
            name = f"{path}/{item.relative_to(local)}"
            filesystem.put_file(str(item), name)
            written.add(name)
    return written
