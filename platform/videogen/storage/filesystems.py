"""Filesystems of URIs: fsspec and pyarrow, local and S3.

S3 is configured by the standard variables only (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, ...), so no secret passes
through an option, a config file or a log.
"""

import os
from typing import TYPE_CHECKING, Any

from videogen.storage.uris import S3_SCHEME, absolute, is_remote

if TYPE_CHECKING:
    import fsspec
    import pyarrow.fs

_MAX_ATTEMPTS = 6
"""Attempts of a request, with backoff of up to 1, 2, 4, 8 and 16 s: transient S3 errors must not end a long run."""
_MAX_ATTEMPTS_FAIL_FAST = 3
"""Attempts before any work starts: an unreachable server must be reported within seconds."""


def fsspec_filesystem(uri: str, fail_fast: bool = False) -> tuple["fsspec.AbstractFileSystem", str]:
    """Return the fsspec filesystem of `uri` and the path in it.

    Args:
        uri: file or folder to read or write.
        fail_fast: report S3 errors within seconds, unchanged. By default requests are retried for half a minute, and a
            permanent error is raised as `StorageError`.
    """
    import fsspec

    location = absolute(uri)
    if not location.startswith(S3_SCHEME):
        return fsspec.filesystem("file"), location
    attempts = _MAX_ATTEMPTS_FAIL_FAST if fail_fast else _MAX_ATTEMPTS
    options: dict[str, Any] = {
        # Not cached: a listing must include files that another process has just written.
        "use_listings_cache": False,
        "config_kwargs": {"connect_timeout": 5, "retries": {"mode": "standard", "max_attempts": attempts}},
        # boto3 reads this variable itself, but fsspec caches instances by options: a new endpoint needs a new instance.
        "endpoint_url": os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"),
    }
    path = location.removeprefix(S3_SCHEME)
    if fail_fast:
        return fsspec.filesystem("s3", **options), path
    from videogen.storage.retrying_s3 import RetryingS3FileSystem

    return RetryingS3FileSystem(**options), path


def arrow_filesystem(uri: str) -> tuple["pyarrow.fs.FileSystem", str]:
    """Return the pyarrow filesystem of `uri` (s3fs underneath for S3) and the path in it."""
    import pyarrow.fs

    if is_remote(uri):
        filesystem, path = fsspec_filesystem(uri)
        return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(filesystem)), path
    return pyarrow.fs.LocalFileSystem(), absolute(uri)
