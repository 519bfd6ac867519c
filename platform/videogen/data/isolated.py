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

_REQUESTS_PER_CHILD = 2000
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
        self._child: _Child | None = None
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
            self._child.end()
            self._child = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _ask(self, request: dict[str, Any], body: bytes, limit_s: float) -> tuple[dict[str, Any], bytearray]:
        with self._lock:
            if self._child is not None and self._child.num_requests >= _REQUESTS_PER_CHILD:
                self.close()
            self._child = self._child or _Child()
            try:
                header, answer = self._child.ask(request, body, limit_s)
            except BaseException:
                # Also on Ctrl-C: an answer that nobody read must not become the next question's.
                self.close()
                raise
        if "error" in header:
            raise VideoError(header["error"])
        return header, answer


class _Child:
    """A running decoder process."""

    def __init__(self) -> None:
        # It must import this very package, also where it came with a job's working directory.
        source_root = str(Path(__file__).parents[2])
        search = [source_root, *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "videogen.data._decoder_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(search), "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._requests, self._answers = self.process.stdin, self.process.stdout
        self.num_requests = 0

    def ask(self, request: dict[str, Any], body: bytes, limit_s: float) -> tuple[dict[str, Any], bytearray]:
        """Return the answer to one request: its header, and its raw bytes."""
        self.num_requests += 1
        deadline = time.monotonic() + limit_s
        # The child's own alarm is the second line, for when this process is killed meanwhile.
        message = pack({**request, "limit_s": limit_s + 5}, body)
        # A dead child is noticed, with the way it died, when its answer is read.
        with contextlib.suppress(OSError):
            self._requests.write(message)
            self._requests.flush()
        header_bytes, body_bytes = LENGTHS.unpack(self._read(LENGTHS.size, deadline, limit_s))
        header = json.loads(self._read(header_bytes, deadline, limit_s))
        return header, self._read(body_bytes, deadline, limit_s)

    def end(self) -> None:
        """Kill it, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        for pipe in (self._requests, self._answers):
            # A request that the dead child never read may still sit in the buffer.
            with contextlib.suppress(OSError):
                pipe.close()

    def _read(self, num_bytes: int, deadline: float, limit_s: float) -> bytearray:
        pipe = self._answers.fileno()
        buffer = bytearray(num_bytes)
        filled = 0
        while filled < num_bytes:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise DecoderDiedError(f"the decoder was stopped after {limit_s:.0f} s")
            count = os.readv(pipe, [memoryview(buffer)[filled:]])
            if not count:
                raise DecoderDiedError(f"the decoder crashed (exit status {self.process.wait()})")
            filled += count
        return buffer


def shared_decoder() -> IsolatedDecoder:
    """Return this process's decoder; a forked process gets its own, since two readers of one pipe mix up answers."""
    return _decoder_of(os.getpid())


@functools.cache
def _decoder_of(_pid: int) -> IsolatedDecoder:
    return IsolatedDecoder()
