"""Reading strangers' videos in a child process that may hang or crash without taking its parent along.

Native decoders hang and crash on damaged files, and a hang in native code ends only with the process
(dmlc/decord#373, #375). So each worker keeps one child; it is killed when it takes too long, and replaced.
"""

import contextlib
import functools
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from videogen.data._decoder_child import LENGTHS, pack
from videogen.data.video import VideoError, VideoInfo

_VIDEOS_PER_CHILD = 2000
"""After so many requests a child is replaced, because decoders leak."""


class DecoderDiedError(VideoError):
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
        header, _ = self._ask({"source": uri, "indices": None}, b"", self._limit_s)
        return VideoInfo(**header)

    def read_frames(self, source: str | bytes, indices: Sequence[int], size: int) -> np.ndarray:
        """See `videogen.data.video.read_frames`."""
        uri, body = (None, source) if isinstance(source, bytes) else (source, b"")
        request = {"source": uri, "indices": [int(index) for index in indices], "size": size}
        header, pixels = self._ask(request, body, self._limit_s + 0.5 * len(indices))
        return np.frombuffer(pixels, np.uint8).reshape(header["shape"])

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _ask(self, request: dict[str, Any], body: bytes, limit_s: float) -> tuple[dict[str, Any], bytearray]:
        with self._lock:
            if self._num_requests >= _VIDEOS_PER_CHILD:
                self.close()
            if self._child is None:
                self._child = _start_child()
                self._num_requests = 0
            self._num_requests += 1
            try:
                # The child's own alarm is the second line, for when this process is killed meanwhile.
                header, answer = self._exchange(pack({**request, "limit_s": limit_s + 5}, body), limit_s)
            except BaseException:
                # Also on Ctrl-C: an answer that nobody read must not become the next question's.
                self.close()
                raise
        if "error" in header:
            raise VideoError(header["error"])
        return header, answer

    def _exchange(self, message: bytes, limit_s: float) -> tuple[dict[str, Any], bytearray]:
        deadline = time.monotonic() + limit_s
        # A dead child is noticed, with the way it died, when its answer is read.
        with contextlib.suppress(OSError):
            self._child.stdin.write(message)
            self._child.stdin.flush()
        header_bytes, body_bytes = LENGTHS.unpack(self._read(LENGTHS.size, deadline, limit_s))
        header = json.loads(self._read(header_bytes, deadline, limit_s))
        return header, self._read(body_bytes, deadline, limit_s)

    def _read(self, num_bytes: int, deadline: float, limit_s: float) -> bytearray:
        pipe = self._child.stdout.fileno()
        buffer = bytearray(num_bytes)
        filled = 0
        while filled < num_bytes:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise DecoderDiedError(f"the decoder was stopped after {limit_s:.0f} s")
            count = os.readv(pipe, [memoryview(buffer)[filled:]])
            if not count:
                raise DecoderDiedError(f"the decoder crashed (exit status {self._child.wait()})")
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


def shared_decoder() -> IsolatedDecoder:
    """Return this process's decoder; a forked process gets its own, since two readers of one pipe mix up answers."""
    return _decoder_of(os.getpid())


@functools.cache
def _decoder_of(_pid: int) -> IsolatedDecoder:
    return IsolatedDecoder()
