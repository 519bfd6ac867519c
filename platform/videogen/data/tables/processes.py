"""Which process is this, and does that one still live? Process ids alone are used again and again."""

import contextlib
import socket
import subprocess
from pathlib import Path

from videogen.hashing import short_hash

_PROC = Path("/proc")
_STATE, _START_TIME = 0, 19
"""Fields of /proc/<pid>/stat, counted from the one after the name, which may itself hold spaces and brackets."""


def machine_id() -> str:
    """Return a hash of what process ids are valid in: this host, since it was started, and this container."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append((_PROC / "sys/kernel/random/boot_id").read_text().strip())
        parts.append(str((_PROC / "self/ns/pid").readlink()))
    return short_hash("\n".join(parts), digits=12)


def start_mark(pid: int) -> str | None:
    """Return when a process of this machine was started, as a mark that no other process of this id has.

    None if there is no such process, or if it has ended and only waits for its parent to notice.
    """
    if (_PROC / "self/stat").exists():
        try:
            values = (_PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            return None
        return None if values[_STATE] in ("Z", "X") else values[_START_TIME]
    listed = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = listed.stdout.strip().partition(" ")
    return "-".join(started.split()) if started and not state.startswith("Z") else None
