"""Decoder interface: frames by number, in presentation order."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, Self

import numpy as np

from videogen.data.video._info import VideoError, VideoInfo

_BYTES_AT_ONCE = 512 * 2**20
_FRAMES_AT_ONCE = 8


def frames_at_once(info: VideoInfo) -> int:
    """Return how many full-size frames may be in memory at a time: 8, or fewer if they are very large."""
    return max(1, min(_FRAMES_AT_ONCE, _BYTES_AT_ONCE // (info.width * info.height * 3)))


class Decoder(ABC):
    """One open video.

    Frame i is the i-th frame in presentation order, as counted by `probe`, for every decoder.
    """

    name: ClassVar[str]

    def __init__(self, path: str, info: VideoInfo) -> None:
        self.path = path
        self.info = info

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """Return the versions of the library and of its FFmpeg.

        Raises:
            UserError: it is not installed; the message says how to install it.
        """

    @classmethod
    def doubts(cls, info: VideoInfo) -> str:  # noqa: ARG003
        """Return why this decoder is unreliable for such a video; "" if it is reliable."""
        return ""

    @abstractmethod
    def _read(self, indices: list[int]) -> np.ndarray:
        """Return these frames, which exist, as uint8 RGB (n, H, W, 3)."""

    @abstractmethod
    def stream(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the number and pixels, uint8 RGB (H, W, 3), of every frame in presentation order.

        Raises:
            VideoError: a frame cannot be decoded.
        """

    def read(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield frames in the requested order, repetitions allowed, as uint8 RGB (n, H, W, 3) with n <= 8.

        Raises:
            VideoError: a frame number is out of range, or a frame cannot be decoded.
        """
        numbers = [int(index) for index in indices]
        if numbers and not (min(numbers) >= 0 and max(numbers) < self.info.num_frames):
            wrong = max(numbers) if max(numbers) >= self.info.num_frames else min(numbers)
            raise VideoError(f"frame {wrong} was requested from a video of {self.info.num_frames} frames")
        step = frames_at_once(self.info)
        for start in range(0, len(numbers), step):
            yield self._read(numbers[start : start + step])

    def close(self) -> None:  # noqa: B027 - optional hook
        """Close the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
