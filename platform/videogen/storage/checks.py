"""Access checks of a job's inputs and outputs, before any work starts, with errors that name the fix.

`readable_uri` and `writable_uri` belong at the edge of a job: they check a URI as the user gave it and return it
absolute, so that nothing further inside has to do either again.
"""

import contextlib
import os
import uuid
from collections.abc import Iterator

from videogen.errors import UserError
from videogen.storage.filesystems import fsspec_filesystem
from videogen.storage.uris import FILE_SCHEME, S3_SCHEME, absolute, is_remote


def readable_uri(uri: str, what: str) -> str:
    """Return `uri` absolute after checking that it can be read.

    Args:
        uri: file or non-empty folder, as the user gave it.
        what: name of the input for the error message, e.g. "Table".

    Raises:
        UserError: nothing readable is at `uri`.
    """
    with _explained(uri, what, "read"):
        location = _location(uri, what)
        filesystem, path = fsspec_filesystem(location, fail_fast=True)
        if filesystem.isfile(path):
            filesystem.cat_file(path, start=0, end=1)
        elif not filesystem.exists(path):
            raise UserError(f"{what} {uri!r} does not exist: check the spelling, or create it first.")
        elif not filesystem.ls(path, detail=False):
            raise UserError(f"{what} {uri!r} is an empty folder: put its files there, or give another URI.")
        return location


def writable_uri(uri: str, what: str) -> str:
    """Return `uri` absolute after checking that files can be written under it; nothing is left behind.

    Args:
        uri: folder, as the user gave it; it need not exist.
        what: name of the output for the error message, e.g. "Output".

    Raises:
        UserError: nothing can be written under `uri`.
    """
    with _explained(uri, what, "write"):
        location = _location(uri, what)
        # A local folder is not created: the job may still be refused for another reason.
        folder = location if location.startswith(S3_SCHEME) else _nearest_existing(location)
        filesystem, path = fsspec_filesystem(f"{folder}/.writable-{uuid.uuid4().hex}", fail_fast=True)
        filesystem.pipe_file(path, b"")
        filesystem.rm_file(path)
        return location


def require_readable(uri: str, what: str) -> None:
    """Raise `UserError` unless a readable file or non-empty folder is at `uri`; `what` names it in the message."""
    readable_uri(uri, what)


def require_writable(uri: str, what: str) -> None:
    """Raise `UserError` unless files can be written under the folder `uri`; nothing is left behind."""
    writable_uri(uri, what)


def _location(uri: str, what: str) -> str:
    """Return `uri` absolute; refuse an empty one (an unset variable), which would mean the working directory."""
    if not str(uri).removeprefix(FILE_SCHEME).strip():
        raise UserError(f"{what} is empty: give a path or an s3:// URI.")
    return absolute(uri)


def _nearest_existing(path: str) -> str:
    """Return `path`, or its nearest parent that exists."""
    while True:
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):  # other errors, e.g. a name that is too long, are raised
            path = os.path.dirname(path)
        else:
            return path


@contextlib.contextmanager
def _explained(uri: str, what: str, verb: str) -> Iterator[None]:
    """Turn any filesystem error into one sentence with the likely fix."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # fsspec, botocore and aiohttp have no common base class
        reason = " ".join(str(error).split()) or type(error).__name__
        if is_remote(uri):
            fix = (
                "check the bucket's name and the variables AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY"
            )
        else:
            fix = "check that it is a folder and its permissions"
        raise UserError(f"Cannot {verb} {what} {uri!r} ({reason.rstrip('.')}): {fix}.") from error
