"""URI handling: local paths, `file://` and `s3://`."""

import os

from videogen.errors import UserError

S3_SCHEME = "s3://"
FILE_SCHEME = "file://"


def is_remote(uri: str) -> bool:
    """Return whether `uri` is on S3."""
    return str(uri).startswith(S3_SCHEME)


def absolute(uri: str) -> str:
    """Return `uri` in a form that is valid in a process with another working directory.

    Raises:
        UserError: an unsupported scheme, or `s3://` without a bucket.
    """
    uri = str(uri)
    if uri.startswith(S3_SCHEME):
        if not uri.removeprefix(S3_SCHEME).strip("/"):
            raise UserError(f"{uri!r} names no bucket: write s3://BUCKET/FOLDER.")
        return uri.rstrip("/")
    scheme, separator, _ = uri.partition("://")
    if separator and scheme != "file":
        raise UserError(f"{uri!r} has the scheme {scheme!r}://, but only local paths, file:// and s3:// are supported.")
    return os.path.abspath(os.path.expanduser(uri.removeprefix(FILE_SCHEME)))


def join(uri: str, *parts: str) -> str:
    """Join path segments onto a URI."""
    return "/".join([str(uri).rstrip("/"), *(str(part).strip("/") for part in parts)])


def parent(uri: str) -> str:
    """Return the folder that contains `uri`; a file system's root and a whole bucket are their own parents."""
    uri = absolute(uri)
    if not is_remote(uri):
        return os.path.dirname(uri)
    bucket, _, key = uri.removeprefix(S3_SCHEME).partition("/")
    return join(f"{S3_SCHEME}{bucket}", *key.split("/")[:-1])


def require_parent(uri: str, what: str) -> str:
    """Return the folder that contains `uri`.

    Args:
        uri: a folder.
        what: name of the folder for the error message.

    Raises:
        UserError: `uri` is a whole bucket, which has no parent.
    """
    folder = parent(uri)
    if is_remote(uri) and folder == absolute(uri):
        raise UserError(
            f"{what} {uri!r} is a whole bucket, but a folder in a bucket is needed: give e.g. {join(uri, 'model')!r}."
        )
    return folder
