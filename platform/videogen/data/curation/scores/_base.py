"""Interface of scores: the frames of one clip at one scale in, one number out."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

SHORT_SIDE = 144
"""Pixels of the shorter side of the frames that are scored, so that scores of large and small videos compare."""


@dataclass(frozen=True)
class ClipFrames:
    """The frames of a clip.

    Videos smaller than `SHORT_SIDE` are scored as they are, never enlarged.
    """

    frames: np.ndarray
    """uint8 RGB of full range, (F, h, w, 3), the shorter side at most `SHORT_SIDE`."""
    fps: float
    """Frames a second of the clip."""

    def __post_init__(self) -> None:
        frames = self.frames
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
            raise ValueError(f"frames must be uint8 (F, h, w, 3), none of them 0, not {frames.dtype} {frames.shape}")

    @cached_property
    def luma(self) -> np.ndarray:
        """Luma of each frame, uint8 (F, h, w); 0 is black and 255 white, whatever the range of the video."""
        import cv2

        return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in self.frames])

    @property
    def short_side(self) -> int:
        """Pixels of the shorter side."""
        return min(self.frames.shape[1:3])

    def spread(self, count: int) -> np.ndarray:
        """Return the numbers of at most `count` frames spread evenly over the clip, first and last among them."""
        total = len(self.frames)
        return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))


class Score(ABC):
    """A number that says one thing about a clip. It judges nothing: policies do.

    Scores are deterministic: the same frames give the same number on every machine of one kind, on one thread.
    """

    name: ClassVar[str]
    """Column of the table of clips."""
    unit: ClassVar[str]
    range: ClassVar[tuple[float, float]]
    """Smallest and largest value possible."""
    description: ClassVar[str]
    """One sentence for people: what is measured, and what a high value means."""

    @abstractmethod
    def __call__(self, clip: ClipFrames) -> float:
        """Return the score of a clip."""
