"""The error of a video that cannot be read, and what native libraries' errors say without their source lines."""

import re

_NATIVE_PREFIX = re.compile(r"^\[[\d:]+\] \S+:\d+: ")
"""decord's "[12:34:56] /path/of/its/source.cc:171: "."""


class VideoError(RuntimeError):
    """A video that cannot be read. The message says why; the caller knows which video."""

    log_tail: str = ""
    """The last that native libraries printed about it, where it was read in a child process."""


def reason_of(error: BaseException) -> str:
    """Return what an exception says, without the source lines and stack that native ones carry."""
    # FFmpeg's errors have it as the system's do, without being OSErrors.
    if description := getattr(error, "strerror", None):
        return str(description)
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "Stack trace" not in line]
    text = next((line for line in lines if not line.startswith("[bt]")), type(error).__name__)
    return _NATIVE_PREFIX.sub("", text)[:200]
