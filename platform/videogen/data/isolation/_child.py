"""Parent side of a decoder process: start, request, memory and time limits, shutdown."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import videogen
from videogen.data.isolation._process import LENGTHS, pack, resident_bytes
from videogen.data.video import READS, VideoError

MEBIBYTE = 2**20

_WATCH_S = 0.05
"""Interval of the memory checks, which cover what RLIMIT_DATA does not count."""

_LOG_BYTES = 2048

_DECORD_READS = (READS % "decord").encode()

_EXTRA_ALARM_S = 5.0
"""Margin of the child's own alarm, the fallback for a parent that was killed."""


class DecoderDiedError(VideoError):
    """A decoder that crashed or exceeded a limit; unlike other errors, it may succeed when retried."""

    in_decord: bool = False
    """Whether decord was the active decoder."""
    was_killed: bool = False
    """Whether it was killed from outside, e.g. by the kernel's OOM killer; the video is not to blame."""


class Child:
    """A running decoder process.

    Args:
        max_memory_bytes: resident memory above which it is killed.
        max_file_bytes: larger remote files are refused.
    """

    def __init__(self, max_memory_bytes: int, max_file_bytes: int) -> None:
        self._max_memory_bytes = max_memory_bytes
        # The child must import this very package, also if it came with a job's working directory.
        source_root = str(Path(videogen.__file__).parents[1])
        search = [source_root, *filter(None, [os.environ.get("PYTHONPATH")])]
        life_line, self._life_line = os.pipe()
        module = [sys.executable, "-m", "videogen.data.isolation._server"]
        self.process = subprocess.Popen(
            [*module, str(life_line), str(max_memory_bytes), str(max_file_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[life_line],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(search), "OMP_NUM_THREADS": "1"},
        )
        os.close(life_line)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._requests, self._answers, self._log = self.process.stdin, self.process.stdout, self.process.stderr
        os.set_blocking(self._requests.fileno(), False)
        os.set_blocking(self._log.fileno(), False)
        self._printed = bytearray()
        self._in_decord = False
        self.num_requests = 0

    @property
    def log_tail(self) -> str:
        """End of the child's output during the current request."""
        self._drain_log()
        return self._printed.decode(errors="replace").strip()

    def ask(self, request: dict[str, Any], body: bytes, limit_s: float) -> tuple[dict[str, Any], bytearray]:
        """Send one request and return the header and the raw bytes of the answer.

        Raises:
            DecoderDiedError: it exited or exceeded a limit; the caller must call `end`.
        """
        self.num_requests += 1
        self._drain_log()
        self._printed.clear()
        self._in_decord = False
        deadline = time.monotonic() + limit_s
        # A dead child is detected, with its exit status, when the answer is read.
        with contextlib.suppress(BrokenPipeError):
            self._write(pack({**request, "limit_s": limit_s + _EXTRA_ALARM_S}, body), deadline, limit_s)
        header_bytes, body_bytes = LENGTHS.unpack(self._read(LENGTHS.size, deadline, limit_s))
        header = json.loads(self._read(header_bytes, deadline, limit_s))
        return header, self._read(body_bytes, deadline, limit_s)

    def died(self, reason: str) -> DecoderDiedError:
        """Return the error for a child that died or must be killed."""
        error = DecoderDiedError(reason)
        error.log_tail = self.log_tail
        error.in_decord = self._in_decord
        return error

    def end(self) -> None:
        """Kill the child."""
        self.process.kill()
        self.process.wait()
        for pipe in (self._requests, self._answers, self._log):
            # The buffer may still hold a request that the child never read.
            with contextlib.suppress(OSError):
                pipe.close()
        with contextlib.suppress(OSError):
            os.close(self._life_line)

    def _write(self, message: bytes, deadline: float, limit_s: float) -> None:
        rest = memoryview(message)
        while rest:
            self._wait([], [self._requests.fileno()], deadline, limit_s)
            with contextlib.suppress(BlockingIOError):
                rest = rest[os.write(self._requests.fileno(), rest) :]

    def _read(self, num_bytes: int, deadline: float, limit_s: float) -> bytearray:
        pipe = self._answers.fileno()
        buffer = bytearray(num_bytes)
        filled = 0
        while filled < num_bytes:
            self._wait([pipe], [], deadline, limit_s)
            count = os.readv(pipe, [memoryview(buffer)[filled:]])
            if not count:
                status = self.process.wait()
                error = self.died(f"the decoder crashed (exit status {status})")
                error.was_killed = status == -signal.SIGKILL
                raise error
            filled += count
        return buffer

    def _wait(self, readable: list[int], writable: list[int], deadline: float, limit_s: float) -> None:
        """Wait until one of the pipes is ready."""
        log = [self._log.fileno()]
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise self.died(f"the decoder was stopped after {limit_s:.3g} s")
            ready_to_read, ready_to_write, _ = select.select(readable + log, writable, [], min(_WATCH_S, remaining))
            # An unread log would fill its pipe and block the child.
            if log[0] in ready_to_read and not self._drain_log():
                log = []
            if ready_to_write or set(ready_to_read) & set(readable):
                return
            if resident_bytes(self.process.pid) > self._max_memory_bytes:
                limit = self._max_memory_bytes // MEBIBYTE
                raise self.died(f"the decoder was stopped at {limit} MiB of memory")

    def _drain_log(self) -> bool:
        """Read the child's output; return False at its end."""
        with contextlib.suppress(BlockingIOError):
            while printed := os.read(self._log.fileno(), 65536):
                self._printed += printed
                # The buffer is truncated, so the active decoder is recorded here.
                self._in_decord |= _DECORD_READS in self._printed
                del self._printed[:-_LOG_BYTES]
            return False
        return True
