"""One writer a table: a second run is refused while the first one lives, and takes over at once when it is dead.

`lease.json` says who writes. On the machine of its holder, a look at the process decides; from elsewhere, whether the
holder still renews it. It changes hands by compare-and-swap (see swap.py), and a holder that was thought dead and wakes
up finds out at `require`, which is called right before anything is published or removed.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass, replace
from typing import Self

from videogen import storage
from videogen.data.tables import swap
from videogen.data.tables.files import LEASE_NAME, written_at
from videogen.data.tables.processes import machine_id, start_mark
from videogen.errors import UserError

logger = logging.getLogger(__name__)

HEARTBEAT_S = 10.0
STALE_S = 60.0


@dataclass(frozen=True)
class _Holder:
    """What lease.json says."""

    token: str
    host: str
    machine: str
    pid: int
    process_start: str
    since: float
    """When it was acquired, in seconds since 1970 by the holder's clock."""
    renewed: float
    beats: int = 0

    @classmethod
    def this_process(cls) -> Self:
        now, pid = time.time(), os.getpid()
        return cls(uuid.uuid4().hex, socket.gethostname(), machine_id(), pid, start_mark(pid) or "", now, now)

    @property
    def is_here(self) -> bool:
        return self.machine == machine_id()

    @property
    def lives_here(self) -> bool:
        return self.is_here and start_mark(self.pid) == self.process_start


class Lease:
    """The right to write a table, renewed by a thread while it is held.

        with Lease(uri) as lease: ...

    Args:
        table_uri: folder of the table, local or on S3; made if it is not there.
        heartbeat_s: seconds from renewal to renewal.
        stale_s: seconds without renewal after which a holder on another machine counts as dead.
    """

    def __init__(self, table_uri: str, heartbeat_s: float = HEARTBEAT_S, stale_s: float = STALE_S) -> None:
        self.table_uri = storage.absolute(table_uri)
        self.since = 0.0
        """When it was acquired, in seconds since 1970 by the storage's own clock, to compare with times of files."""
        self._uri = storage.join(self.table_uri, LEASE_NAME)
        self._heartbeat_s = heartbeat_s
        self._stale_s = stale_s
        self._mine: _Holder | None = None
        self._lost = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> Self:
        """Take the lease, or take it over from a dead holder; from one on another machine that takes `stale_s`.

        Raises:
            UserError: someone else is writing this table.
        """
        mine = _Holder.this_process()
        holder, mark = self._read()
        if holder is not None:
            if holder.lives_here or (not holder.is_here and self._renews(holder)):
                raise self._refusal(holder)
            logger.warning("taking over %s from process %d on %s, which is gone", self._uri, holder.pid, holder.host)
        if not self._swap(mine, mark):
            holder, _ = self._read()
            raise self._refusal(holder)
        self._mine, self._lost = mine, False
        filesystem, path = storage.fsspec_filesystem(self._uri)
        self.since = written_at(filesystem.info(path))
        self._stop.clear()
        self._thread = threading.Thread(target=self._beat, name="videogen-lease", daemon=True)
        self._thread.start()
        return self

    def release(self) -> None:
        """Give the lease back, so that another run may start at once; does nothing if it is not held."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        mine, self._mine = self._mine, None
        if mine is not None:
            holder, mark = self._read()
            if holder is not None and holder.token == mine.token:
                swap.remove(self._uri, mark)

    def require(self) -> None:
        """Look whether the lease is still held.

        Raises:
            UserError: another run has taken it over, or it is not held.
        """
        if self._mine is None:
            raise UserError(f"Table {self.table_uri!r} is not leased by this run: acquire the lease before writing.")
        holder, _ = self._read()
        if self._lost or holder is None or holder.token != self._mine.token:
            raise UserError(
                f"Table {self.table_uri!r} was taken over by another run while this one stood still: let that one "
                "finish, what this one has done is used there."
            )

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(self, *exception: object) -> None:
        self.release()

    def _renews(self, holder: _Holder) -> bool:
        """Tell whether a holder on another machine renews its lease; clocks differ, so what counts is a change."""
        if time.time() - holder.renewed < self._stale_s:
            return True
        time.sleep(1.5 * self._heartbeat_s)
        later, _ = self._read()
        return later is not None and later != holder

    def _refusal(self, holder: _Holder | None) -> UserError:
        who = f"process {holder.pid} on {holder.host}" if holder is not None else "another run"
        return UserError(
            f"Table {self.table_uri!r} is being written by {who}: wait until it has ended, or end it, and try again."
        )

    def _beat(self) -> None:
        renewed = time.monotonic()
        while not self._stop.wait(self._heartbeat_s):
            try:
                kept = self._renew()
            except OSError as error:
                # Others take over after stale_s at the earliest.
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
        holder, mark = self._read()
        if holder is None or holder.token != self._mine.token:
            return False
        return self._swap(replace(holder, renewed=time.time(), beats=holder.beats + 1), mark)

    def _read(self) -> tuple[_Holder | None, str]:
        """Return who holds the lease, and a mark of this state of it; (None, "") if nobody does."""
        data, mark = swap.read(self._uri)
        if data is None:
            return None, ""
        try:
            return _Holder(**json.loads(data)), mark
        except (ValueError, TypeError):
            raise UserError(f"Lease {self._uri!r} cannot be read: remove it if no run is writing the table.") from None

    def _swap(self, holder: _Holder, mark: str) -> bool:
        """Write who holds the lease if it is still what it was when `mark` was read; tell whether it was."""
        data = (json.dumps(asdict(holder), indent=2) + "\n").encode()
        if not swap.swap(self._uri, data, mark):
            return False
        # A storage that knows no conditions has let the last one win.
        now, _ = self._read()
        return now is not None and now.token == holder.token
