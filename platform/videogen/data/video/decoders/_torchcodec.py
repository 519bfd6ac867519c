"""Decoder torchcodec: optional, requires the torchcodec package and the system's FFmpeg libraries."""

import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from videogen.data.video._info import VideoError, VideoInfo, reason_of
from videogen.data.video.decoders._base import Decoder, frames_at_once
from videogen.errors import UserError

CURE = (
    "install FFmpeg's shared libraries (apt-get install ffmpeg) and a torchcodec of the same kind as torch "
    "(for a CPU build of torch 2.11 or later: pip install torchcodec==0.13.0), or choose the decoder 'auto'"
)


class TorchcodecDecoder(Decoder):
    """Decoder that uses torchcodec."""

    name = "torchcodec"

    def __init__(self, path: str, info: VideoInfo) -> None:
        super().__init__(path, info)
        library = _library()
        try:
            # "exact" numbers frames by packets, as the probe does, instead of by the header's rate.
            self._video = library.decoders.VideoDecoder(
                path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact"
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise VideoError(f"its frames cannot be decoded ({reason_of(error)})") from error
        if len(self._video) != info.num_frames:
            raise VideoError(f"torchcodec counts {len(self._video)} frames in it instead of {info.num_frames}")

    @classmethod
    def version(cls) -> str:
        """Return the versions of torchcodec and of the system's FFmpeg."""
        library = _library()
        libraries = library.ffmpeg_major_version if hasattr(library, "ffmpeg_major_version") else "of the system"
        return f"torchcodec {library.__version__} (FFmpeg {libraries})"

    def _read(self, indices: list[int]) -> np.ndarray:
        try:
            frames: np.ndarray = self._video.get_frames_at(indices).data.numpy()
        except (RuntimeError, ValueError, IndexError, OSError) as error:
            raise VideoError(f"its frames cannot be decoded ({reason_of(error)})") from error
        return frames

    def stream(self) -> Iterator[tuple[int, np.ndarray]]:
        """See `Decoder.stream`."""
        step = frames_at_once(self.info)
        for start in range(0, self.info.num_frames, step):
            numbers = list(range(start, min(start + step, self.info.num_frames)))
            yield from zip(numbers, self._read(numbers), strict=True)


def _library() -> Any:
    try:
        # Imported by name because torchcodec is no dependency, so type checkers cannot find it.
        library = importlib.import_module("torchcodec")
        importlib.import_module("torchcodec.decoders")
    except (ImportError, OSError, RuntimeError) as error:
        raise UserError(f"Decoder 'torchcodec' cannot be loaded ({reason_of(error)}): {CURE}.") from error
    return library
