"""Reading strangers' videos in a child process that may hang or crash without taking its parent along.

Native decoders hang and crash on damaged files, and a hang in native code ends only with the process
(dmlc/decord#373, #375). So each worker keeps one child; it is killed when it takes too long or too much memory, and
replaced.
"""

import functools
import os
import re
import threading
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from videogen.data.isolation._child import MEBIBYTE, Child, DecoderDiedError
from videogen.data.video import MAX_FILE_BYTES, DecodedClip, Size, VideoError, VideoInfo
from videogen.errors import UserError

__all__ = ["DecodedClip", "DecoderDiedError", "IsolatedDecoder", "shared_decoder"]

_SECONDS_PER_FRAME = 0.5

_FFMPEG_COMPLAINS = re.compile(r"^\[\w+ @ 0x\w+\]", re.MULTILINE)


class IsolatedDecoder:
    """One child process and its requests; threads take turns.

    Args:
        limit_s: seconds that one request may take; each frame asked for adds half a second.
        max_memory_bytes: what the child may occupy.
        max_file_bytes: a remote file that is larger is an error and is not fetched.
        requests_per_child: requests after which the child is replaced, because decoders leak memory.
    """

    def __init__(
        self,
        limit_s: float = 60.0,
        max_memory_bytes: int = 2048 * MEBIBYTE,
        max_file_bytes: int = MAX_FILE_BYTES,
        requests_per_child: int = 2000,
    ) -> None:
        self._limit_s = limit_s
        self._max_memory_bytes = max_memory_bytes
        self._max_file_bytes = max_file_bytes
        self._requests_per_child = requests_per_child
        self._child: Child | None = None
        self._lock = threading.Lock()

    @property
    def child_pid(self) -> int | None:
        """Process id of the child; None while there is none."""
        return None if self._child is None else self._child.process.pid

    def probe(self, uri: str) -> VideoInfo:
        """See `videogen.data.video.probe`."""
        header, _ = self.call("probe", {"source": uri}, self._limit_s)
        return VideoInfo(**{**header, "timestamps": tuple(header["timestamps"])})

    def read_frames(self, source: str | bytes, indices: Sequence[int], size: Size, decoder: str = "auto") -> np.ndarray:
        """See `videogen.data.video.read_frames`."""
        return self.read_clip(source, indices, size, decoder).frames

    def read_clip(
        self,
        source: str | bytes,
        indices: Sequence[int],
        size: Size,
        decoder: str = "auto",
        limit_s: float | None = None,
    ) -> DecodedClip:
        """See `read_clip`; `limit_s` is what it may take, by default more for more frames."""
        uri, body = (None, source) if isinstance(source, bytes) else (source, b"")
        arguments = {"source": uri, "indices": [int(index) for index in indices], "size": size, "decoder": decoder}
        limit_s = self._limit_s + _SECONDS_PER_FRAME * len(indices) if limit_s is None else limit_s
        header, pixels = self.call("frames", arguments, limit_s, body)
        return DecodedClip(np.frombuffer(pixels, np.uint8).reshape(header["shape"]), header["decoder"])

    def call(
        self, op: str, arguments: dict[str, Any], limit_s: float | None = None, body: bytes = b""
    ) -> tuple[dict[str, Any], bytearray]:
        """Let the child do one operation, and return its answer: JSON, and raw bytes.

        Where `arguments` leave the decoder open ("auto", or none named) and decord dies of the video or meets damage,
        PyAV is asked.

        Args:
            op: name of an operation of `videogen.data.isolation._server`.
            arguments: JSON that the operation takes.
            limit_s: seconds that it may take; the decoder's own limit by default.
            body: raw bytes that the operation takes.

        Raises:
            VideoError: the operation failed; `log_tail` holds what native libraries printed.
            DecoderDiedError: the child hung, crashed or ran out of memory, and is gone.
            UserError: the request itself is wrong.
        """
        limit_s = self._limit_s if limit_s is None else limit_s
        open_choice = arguments.get("decoder", "auto") == "auto"
        try:
            header, answer, log = self._ask_once_more_if_killed(op, arguments, limit_s, body)
        except DecoderDiedError as error:
            if not (open_choice and error.in_decord):
                raise
        else:
            # decord gives frames that it could not decode whole; only what its FFmpeg prints tells.
            if not (open_choice and header.get("decoder") == "decord" and _FFMPEG_COMPLAINS.search(log)):
                return header, answer
        return self._ask(op, {**arguments, "decoder": "pyav"}, limit_s, body)[:2]

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

    def _ask_once_more_if_killed(
        self, op: str, arguments: dict[str, Any], limit_s: float, body: bytes
    ) -> tuple[dict[str, Any], bytearray, str]:
        """Ask the same decoder: which one reads a video must not depend on what happens to the machine."""
        try:
            return self._ask(op, arguments, limit_s, body)
        except DecoderDiedError as error:
            if not error.was_killed:
                raise
            return self._ask(op, arguments, limit_s, body)

    def _ask(
        self, op: str, arguments: dict[str, Any], limit_s: float, body: bytes
    ) -> tuple[dict[str, Any], bytearray, str]:
        with self._lock:
            if self._child is not None and self._child.num_requests >= self._requests_per_child:
                self.close()
            self._child = self._child or Child(self._max_memory_bytes, self._max_file_bytes)
            child = self._child
            try:
                header, answer = child.ask({"op": op, "arguments": arguments}, body, limit_s)
                if header.get("kind") == "memory":
                    # What it still holds would make the next video fail as well.
                    raise child.died(f"the decoder needed more than {self._max_memory_bytes // MEBIBYTE} MiB of memory")
                log = child.log_tail
            except BaseException:
                # Also on Ctrl-C: an answer that nobody read must not become the next question's.
                self.close()
                raise
        if header.get("kind") == "user":
            raise UserError(header["error"])
        if "error" in header:
            error = VideoError(header["error"])
            error.log_tail = log
            raise error
        return header, answer, log


def shared_decoder() -> IsolatedDecoder:
    """Return this process's decoder; a forked process gets its own, since two readers of one pipe mix up answers."""
    return _decoder_of(os.getpid())


@functools.cache
def _decoder_of(_pid: int) -> IsolatedDecoder:
    return IsolatedDecoder()
