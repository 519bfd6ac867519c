"""Local access to a video: a temporary copy of remote files that disappears with the process."""

import contextlib
import errno
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import IO

from videogen import storage
from videogen.data.video._info import VideoError, reason_of
from videogen.errors import StorageError, UserError

MAX_FILE_BYTES = 16 * 2**30
"""Default limit on the size of a remote file."""

_BLOCK_BYTES = 4 * 2**20

_PAUSES_S = (0.5, 2.0)
"""Pauses before the retries of a download: a transient storage error must not count as a failed video."""


@contextlib.contextmanager
def local_file(source: str | bytes, max_bytes: int) -> Iterator[str]:
    """Yield a path that FFmpeg can open.

    Local files are used in place. Remote files are copied to an unlinked temporary file, which the kernel removes with
    the last process that has it open, also after SIGKILL.

    Args:
        source: URI of a file, or its content.
        max_bytes: larger remote files are refused.

    Raises:
        VideoError: unreadable, too large, or replaced during the download.
        UserError: the local disk is full, or the storage fails or denies access; the video is not to blame.
    """
    if isinstance(source, str) and not storage.is_remote(source):
        yield storage.absolute(source)
        return
    with tempfile.TemporaryFile(prefix="videogen-") as file:
        try:
            if isinstance(source, bytes):
                file.write(source)
            else:
                _fetch(source, file, max_bytes)
            file.flush()
        except StorageError:
            raise  # e.g. invalid credentials: no video can be downloaded, so none is to blame
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(
                    f"{tempfile.gettempdir()!r} has no room for a copy of a video ({reason_of(error)}): free some "
                    f"space, or set TMPDIR to a larger disk."
                ) from error
            raise VideoError(f"it cannot be fetched ({reason_of(error)})") from error
        yield f"/proc/self/fd/{file.fileno()}"


def _fetch(uri: str, file: IO[bytes], max_bytes: int) -> None:
    filesystem, path = storage.fsspec_filesystem(uri)
    for pause_s in (*_PAUSES_S, None):
        try:
            num_bytes = filesystem.size(path) or 0
            if num_bytes > max_bytes:
                raise VideoError(f"it has {num_bytes} bytes, more than the {max_bytes} that are fetched")
            with filesystem.open(path, "rb", block_size=_BLOCK_BYTES, cache_type="readahead") as remote:
                shutil.copyfileobj(remote, file, _BLOCK_BYTES)
            if file.tell() == num_bytes:
                return
            raise VideoError(f"{file.tell()} of its {num_bytes} bytes arrived: it was replaced meanwhile")
        except (VideoError, StorageError, FileNotFoundError, PermissionError):
            raise  # permanent, or a `StorageError` that follows retries of its own
        except Exception as error:  # the storage libraries have no common base class for transient errors
            if pause_s is None or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise
            time.sleep(pause_s)
            file.seek(0)
            file.truncate()
