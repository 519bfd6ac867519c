"""Table lease: one writer per table, with takeover from dead processes and fencing of writers that lost it.

`lease.json` names the holder. On the holder's machine, its process identity decides whether it is alive; on other
machines, whether it still sends heartbeats. The lease changes hands by compare-and-swap. A holder that was presumed
dead and resumes is fenced off by `Lease.require`, which is called immediately before anything is published or removed.
"""

import contextlib
import json
import logging
import os
import socket
import subprocess
import threading
import time
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from videogen import storage
from videogen.data.tables.files import (
    LEASE_NAME,
)
from videogen.errors import UserError
from videogen.hashing import short_hash

logger = logging.getLogger(__name__)

HEARTBEAT_S = 10.0
STALE_S = 60.0

_PROC = Path("/proc")
_STATE, _START_TIME = 0, 19
"""Fields of /proc/<pid>/stat, counted from the one after the name, which may itself contain spaces and brackets."""


# --- process identity ------------------------------------------------------------------------------------------------


def machine_id() -> str:
    """Return a hash of the scope in which process ids are unique: host, boot and PID namespace."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append((_PROC / "sys/kernel/random/boot_id").read_text().strip())
        parts.append(str((_PROC / "self/ns/pid").readlink()))
    return short_hash("\n".join(parts), digits=12)


def process_start(pid: int) -> str | None:
    """Return the start time of a process on this machine, which tells it from others that reuse its id.

    None if there is no such process, or if it is a zombie.
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


# --- lease -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Holder:
    """Content of lease.json."""

    token: str
    host: str
    machine: str
    pid: int
    process_start: str
    since: float
    """Time of acquisition, in seconds since 1970 by the holder's clock."""
    renewed: float
    beats: int = 0

    @classmethod
    def this_process(cls) -> Self:
        now, pid = time.time(), os.getpid()
        return cls(uuid.uuid4().hex, socket.gethostname(), machine_id(), pid, process_start(pid) or "", now, now)

    @property
    def is_local(self) -> bool:
        return self.machine == machine_id()

    @property
    def is_alive_locally(self) -> bool:
        return self.is_local and process_start(self.pid) == self.process_start


class Lease:
    """Exclusive right to write a table, renewed by a background thread while it is held.

        with Lease(uri) as lease: ...

    Args:
        table_uri: folder of the table, local or on S3; created if it does not exist.
        heartbeat_s: seconds between renewals.
        stale_s: seconds without renewal after which a holder on another machine is presumed dead.
    """

    def __init__(self, table_uri: str, heartbeat_s: float = HEARTBEAT_S, stale_s: float = STALE_S) -> None:
        self.table_uri = storage.absolute(table_uri)
        self.since = 0.0
        """Time of acquisition in seconds since 1970 by the storage's clock, comparable with modification times."""
        self._uri = storage.join(self.table_uri, LEASE_NAME)
        self._heartbeat_s = heartbeat_s
        self._stale_s = stale_s
        self._mine: _Holder | None = None
        self._lost = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> Self:
        """Acquire the lease, if necessary from a dead holder; from one on another machine that takes `stale_s`.

        Raises:
            UserError: another run is writing this table.
        """
        mine = _Holder.this_process()
        holder, version = self._read()
        if holder is not None:
            if holder.is_alive_locally or (not holder.is_local and self._is_renewed(holder)):
                raise self._refusal(holder)
            logger.warning("taking over %s from process %d on %s, which is gone", self._uri, holder.pid, holder.host)
        if not self._swap(mine, version):
            holder, _ = self._read()
            raise self._refusal(holder)
        self._mine, self._lost = mine, False
        filesystem, path = storage.fsspec_filesystem(self._uri)
        self.since = storage.modified_at(filesystem.info(path))
        self._stop.clear()
        self._thread = threading.Thread(target=self._send_heartbeats, name="videogen-lease", daemon=True)
        self._thread.start()
        return self

    def release(self) -> None:
        """Release the lease, so that another run can start immediately; without effect if it is not held."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        mine, self._mine = self._mine, None
        if mine is not None:
            holder, version = self._read()
            if holder is not None and holder.token == mine.token:
                storage.remove_if_unchanged(self._uri, version)

    def require(self) -> None:
        """Check that the lease is still held.

        Raises:
            UserError: another run has taken it over, or it was never acquired.
        """
        if self._mine is None:
            raise UserError(f"Table {self.table_uri!r} is not leased by this run: acquire the lease before writing.")
        holder, _ = self._read()
        if self._lost or holder is None or holder.token != self._mine.token:
            raise UserError(
                f"Table {self.table_uri!r} was taken over by another run while this one was suspended: let that run "
                "finish, it uses everything that this one has committed."
            )

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(self, *exception: object) -> None:
        self.release()

    def _is_renewed(self, holder: _Holder) -> bool:
        """Return whether a holder on another machine renews its lease; clocks may differ, so changes are observed."""
        if time.time() - holder.renewed < self._stale_s:
            return True
        time.sleep(1.5 * self._heartbeat_s)
        later, _ = self._read()
        return later is not None and later != holder

    def _refusal(self, holder: _Holder | None) -> UserError:
        writer = f"process {holder.pid} on {holder.host}" if holder is not None else "another run"
        return UserError(
            f"Table {self.table_uri!r} is being written by {writer}: wait until it has ended, or end it, and try again."
        )

    def _send_heartbeats(self) -> None:
        renewed = time.monotonic()
        while not self._stop.wait(self._heartbeat_s):
            try:
                kept = self._renew()
            except OSError as error:
                # No other run takes over earlier than stale_s after the last renewal.
                kept = time.monotonic() - renewed < self._stale_s
                logger.warning("could not renew %s: %s", self._uri, error)
            else:
                renewed = time.monotonic()
            if not kept:
                self._lost = True
                logger.error("%s is no longer held by this run", self._uri)
                return

    def _renew(self) -> bool:
        assert self._mine is not None
        holder, version = self._read()
        if holder is None or holder.token != self._mine.token:
            return False
        return self._swap(replace(holder, renewed=time.time(), beats=holder.beats + 1), version)

    def _read(self) -> tuple[_Holder | None, str]:
        """Return the holder and the version of lease.json; (None, "") if nobody holds the lease."""
        data, version = storage.read_versioned(self._uri)
        if data is None:
            return None, ""
        try:
            return _Holder(**json.loads(data)), version
        except (ValueError, TypeError):
            raise UserError(f"Lease {self._uri!r} cannot be read: remove it if no run is writing the table.") from None

    def _swap(self, holder: _Holder, version: str) -> bool:
        """Write the holder if lease.json still has this version; return whether this holder has the lease now."""
        data = (json.dumps(asdict(holder), indent=2) + "\n").encode()
        if not storage.replace_if_unchanged(self._uri, data, version):
            return False
        # A storage without conditional requests has let the last writer win.
        now, _ = self._read()
        return now is not None and now.token == holder.token
