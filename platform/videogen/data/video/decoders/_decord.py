"""Decoder decord: fastest at random access, with an FFmpeg of 2018."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from videogen.data.video._info import VideoError, VideoInfo, reason_of
from videogen.data.video.decoders._base import Decoder, frames_at_once

_ANY_RECOVERED = 1e-6
"""Fraction of frames that decord may replace by others if decoding fails: practically none (0 means unlimited)."""

_TRUSTED_CONTAINERS = frozenset({"mp4", "matroska"})
_TRUSTED_CODECS = frozenset({"h264", "hevc", "mjpeg", "mpeg4", "vp9"})
_TRUSTED_PIXEL_FORMATS = frozenset({"yuv420p", "yuvj420p"})


class DecordDecoder(Decoder):
    """Decoder that uses decord."""

    name = "decord"

    def __init__(self, path: str, info: VideoInfo) -> None:
        super().__init__(path, info)
        import decord
        from decord._ffi.base import DECORDLimitReachedError

        self._errors = (decord.DECORDError, DECORDLimitReachedError, RuntimeError, AssertionError, IndexError)
        try:
            # One thread: the caller runs one decoder per core.
            self._reader: Any = decord.VideoReader(path, num_threads=1, fault_tol=_ANY_RECOVERED)
        except self._errors as error:
            raise VideoError(f"its frames cannot be decoded ({reason_of(error)})") from error
        if len(self._reader) != info.num_frames:
            # Its frame numbers would refer to other frames, and seeking near the end may hang (dmlc/decord#373).
            raise VideoError(f"decord counts {len(self._reader)} frames in it instead of {info.num_frames}")

    @classmethod
    def version(cls) -> str:
        """Return the versions of decord and of its FFmpeg."""
        import decord

        return f"decord {decord.__version__} (FFmpeg 4.1)"

    @classmethod
    def doubts(cls, info: VideoInfo) -> str:
        """See `Decoder.doubts`; tests/test_data_decoders.py has a case for each."""
        if info.container not in _TRUSTED_CONTAINERS:
            return f"container {info.container}"
        if info.num_video_streams > 1:
            return f"{info.num_video_streams} video streams"
        if info.codec not in _TRUSTED_CODECS:
            return f"codec {info.codec}"
        if info.pixel_format not in _TRUSTED_PIXEL_FORMATS:
            return f"pixel format {info.pixel_format}"
        if info.rotation:
            return f"rotation by {info.rotation} degrees"
        if info.width % 2 or info.height % 2:
            return f"odd sides ({info.width} x {info.height})"
        if not info.exact_seek:
            return "frames that refer across key frames, or have no timestamps"
        return ""

    def _read(self, indices: list[int]) -> np.ndarray:
        try:
            frames: np.ndarray = self._reader.get_batch(indices).asnumpy()
        except self._errors as error:
            raise VideoError(f"its frames cannot be decoded ({reason_of(error)})") from error
        if frames.shape[1:3] != (self.info.height, self.info.width):
            raise VideoError(f"decord reads frames of another size {frames.shape[1:3]}, perhaps of another stream")
        return frames

    def stream(self) -> Iterator[tuple[int, np.ndarray]]:
        """See `Decoder.stream`."""
        step = frames_at_once(self.info)
        for start in range(0, self.info.num_frames, step):
            numbers = list(range(start, min(start + step, self.info.num_frames)))
            yield from zip(numbers, self._read(numbers), strict=True)

    def close(self) -> None:
        """Close the file."""
        del self._reader
