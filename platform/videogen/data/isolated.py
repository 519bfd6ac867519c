"""Reading strangers' videos in a child process that may hang or crash without taking its parent along.

Native decoders hang and crash on damaged files, and a hang in native code ends only with the process
(dmlc/decord#373, #375). So each worker keeps one child; it is killed when it takes too long, and replaced.
"""

import contextlib
import os
import pickle
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from videogen.data.video import VideoError, VideoInfo

_VIDEOS_PER_CHILD = 2000
"""After so many requests a child is replaced, because decoders leak."""


class DecoderDied(VideoError):
    """The decoder crashed or was killed for taking too long; unlike other errors it may not repeat."""


class IsolatedDecoder:
    """One child process and its requests; threads take turns.

    Args:
        limit_s: seconds that one request may take; each frame asked for adds half a second.
    """

    def __init__(self, limit_s: float = 60.0) -> None:
        self._limit_s = limit_s
        self._child: subprocess.Popen[bytes] | None = None
        self._num_requests = 0
        self._lock = threading.Lock()

    def probe(self, uri: str) -> VideoInfo:
        """See `videogen.data.video.probe`."""
        return self._ask("probe", (uri,), self._limit_s)

    def read_frames(self, source: str | bytes, indices: Sequence[int], size: int) -> np.ndarray:
        """See `videogen.data.video.read_frames`."""
        return self._ask("read_frames", (source, list(indices), size), self._limit_s + 0.5 * len(indices))

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                # A request that the dead child never read may still sit in the buffer.
                with contextlib.suppress(OSError):
                    pipe.close()
            self._child = None

    def __enter__(self) -> "IsolatedDecoder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _ask(self, action: str, arguments: tuple[Any, ...], limit_s: float) -> Any:
        with self._lock:
            if self._num_requests >= _VIDEOS_PER_CHILD:
                self.close()
            if self._child is None:
                self._child = _start_child()
                self._num_requests = 0
            self._num_requests += 1
            try:
                fine, answer = self._exchange(pickle.dumps((action, arguments, limit_s + 5)), limit_s)
            except BaseException:
                # Also on Ctrl-C: an answer that nobody read must not become the next question's.
                self.close()
                raise
        if not fine:
            raise VideoError(answer)
        return answer

    def _exchange(self, request: bytes, limit_s: float) -> tuple[bool, Any]:
        deadline = time.monotonic() + limit_s
        try:
            self._child.stdin.write(struct.pack("<Q", len(request)) + request)
            self._child.stdin.flush()
        except OSError:
            pass  # it is dead: reading finds that out and says how it died
        (length,) = struct.unpack("<Q", self._read(8, deadline, limit_s))
        return pickle.loads(self._read(length, deadline, limit_s))

    def _read(self, num_bytes: int, deadline: float, limit_s: float) -> bytearray:
        pipe = self._child.stdout.fileno()
        buffer = bytearray(num_bytes)
        filled = 0
        while filled < num_bytes:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise DecoderDied(f"the decoder was stopped after {limit_s:.0f} s")
            count = os.readv(pipe, [memoryview(buffer)[filled:]])
            if not count:
                raise DecoderDied(f"the decoder crashed (exit status {self._child.wait()})")
            filled += count
        return buffer


def _start_child() -> "subprocess.Popen[bytes]":
    # The child must import this very package, also where it came with a job's working directory.
    source_root = str(Path(__file__).parents[2])
    search = [source_root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-m", "videogen.data._decoder_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search), "OMP_NUM_THREADS": "1"},
    )


_shared: tuple[int, IsolatedDecoder] | None = None


def shared_decoder() -> IsolatedDecoder:
    """Return this process's decoder; a forked process gets its own, since two readers of one pipe mix up answers."""
    global _shared
    if _shared is None or _shared[0] != os.getpid():
        _shared = (os.getpid(), IsolatedDecoder())
    return _shared[1]
