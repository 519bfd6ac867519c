"""Both ends of a decoder process: message framing, resource limits, and the link between their lifetimes."""

import fcntl
import json
import os
import resource
import signal
import struct
from typing import Any

LENGTHS = struct.Struct("<QQ")


def pack(header: dict[str, Any], body: bytes = b"") -> bytes:
    """Return a message: a JSON header and raw bytes, preceded by the length of each.

    Not a pickle: if a hostile video took control of the child, its answers must not be able to run code in the parent.
    """
    text = json.dumps(header).encode()
    return LENGTHS.pack(len(text), len(body)) + text + body


def limit_process(max_memory_bytes: int, max_file_bytes: int) -> None:
    """Limit this process's memory and the size of any file that it writes.

    RLIMIT_DATA rather than RLIMIT_AS: it counts writable memory, not mapped libraries.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = max_memory_bytes if hard == resource.RLIM_INFINITY else min(max_memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, wanted))
    # Python ignores SIGXFSZ, so a write over the limit is an ordinary OSError.
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
    # A crash is reported by its exit status; core files of gigabytes would fill the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def end_with_parent(life_line: int) -> None:
    """Let the kernel end this process when the other end of a pipe is closed, which happens when its owner dies.

    SIGIO's default action runs without Python. (PR_SET_PDEATHSIG is unsuitable: it already fires when the *thread* that
    started this process ends.)

    Args:
        life_line: read end of a pipe that nobody writes to.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(life_line, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(life_line, fcntl.F_SETFL, fcntl.fcntl(life_line, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    # The owner may have died before the signal was requested.
    try:
        closed = os.read(life_line, 1) == b""
    except BlockingIOError:
        closed = False
    if closed:
        os.kill(os.getpid(), signal.SIGKILL)


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process, 0 if it has ended."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123 - a kernel file
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0
