"""Decoder client: requests to a child process that may hang or crash without affecting its parent.

Native decoders hang and crash on damaged files, and a hang in native code can only be ended with the process
(dmlc/decord#373, #375). Each worker keeps one child, which is killed and replaced when it exceeds a limit.
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

__all__ = ["DecodedClip", "DecoderDiedError", "IsolatedDecoder", "shared_decoder", "video_limit_s"]

_SECONDS_PER_FRAME = 0.5
_BYTES_PER_LIMIT = 60e6

_FFMPEG_MESSAGE = re.compile(r"^\[\w+ @ 0x\w+\]", re.MULTILINE)


class IsolatedDecoder:
    """Decoder in a child process; threads take turns.

    Args:
        limit_s: time limit of a request in seconds; each requested frame adds half a second.
        max_memory_bytes: memory limit of the child.
        max_file_bytes: larger remote files are refused.
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
        """See `videogen.data.video.read_clip`; `limit_s` by default grows with the number of frames."""
        uri, body = (None, source) if isinstance(source, bytes) else (source, b"")
        arguments = {"source": uri, "indices": [int(index) for index in indices], "size": size, "decoder": decoder}
        limit_s = self._limit_s + _SECONDS_PER_FRAME * len(indices) if limit_s is None else limit_s
        header, pixels = self.call("frames", arguments, limit_s, body)
        return DecodedClip(np.frombuffer(pixels, np.uint8).reshape(header["shape"]), header["decoder"])

    def call(
        self, op: str, arguments: dict[str, Any], limit_s: float | None = None, body: bytes = b""
    ) -> tuple[dict[str, Any], bytearray]:
        """Run one operation in the child and return its answer: a JSON object and raw bytes.

        If `arguments` name no decoder (or "auto") and decord crashes or reports damage, PyAV is used instead.

        Args:
            op: "probe", "frames" or "analyse".
            arguments: JSON arguments of the operation.
            limit_s: time limit in seconds; by default that of this decoder.
            body: raw bytes for the operation.

        Raises:
            VideoError: the operation failed; `log_tail` holds the output of the native libraries.
            DecoderDiedError: the child hung, crashed or ran out of memory, and was killed.
            UserError: the request is invalid.
        """
        limit_s = self._limit_s if limit_s is None else limit_s
        open_choice = arguments.get("decoder", "auto") == "auto"
        try:
            header, answer, log = self._ask_with_retry(op, arguments, limit_s, body)
        except DecoderDiedError as error:
            if not (open_choice and error.in_decord):
                raise
        else:
            # decord returns partially decoded frames; only the messages of its FFmpeg reveal them.
            if not (open_choice and header.get("decoder") == "decord" and _FFMPEG_MESSAGE.search(log)):
                return header, answer
        return self._ask(op, {**arguments, "decoder": "pyav"}, limit_s, body)[:2]

    def close(self) -> None:
        """Kill the child."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _ask_with_retry(
        self, op: str, arguments: dict[str, Any], limit_s: float, body: bytes
    ) -> tuple[dict[str, Any], bytearray, str]:
        """Retry with the same decoder: the choice must not depend on events on the machine such as an OOM kill."""
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
                    # Memory that it still holds would make the next video fail as well.
                    raise child.died(f"the decoder needed more than {self._max_memory_bytes // MEBIBYTE} MiB of memory")
                log = child.log_tail
            except BaseException:
                # Also on Ctrl-C: an unread answer must not be taken for that of the next request.
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
    """Return this process's decoder; a forked process gets its own because two readers of one pipe conflict."""
    return _decoder_of(os.getpid())


@functools.cache
def _decoder_of(_pid: int) -> IsolatedDecoder:
    return IsolatedDecoder()


def video_limit_s(limit_s: float, num_bytes: int | None) -> float:
    """Return the time limit of a video in seconds: `limit_s`, plus `limit_s` per 60 MB of its file.

    With 60 s, an hour of 1080p video may take half an hour; a small file that blocks a decoder for hours is a poison
    input.
    """
    return limit_s * (1 + (num_bytes or 0) / _BYTES_PER_LIMIT)
