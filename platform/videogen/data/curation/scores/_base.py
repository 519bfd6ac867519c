"""Score interface: one number from the frames of a clip at a fixed scale."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

SHORT_SIDE = 144
"""Shorter side in pixels of the frames that are scored, so that scores are comparable across resolutions."""


@dataclass(frozen=True)
class ClipFrames:
    """Frames of a clip at the scale of the scores; smaller videos are not upsampled."""

    frames: np.ndarray
    """uint8 full-range RGB, (F, h, w, 3), with a shorter side of at most `SHORT_SIDE`."""
    fps: float
    """Frames per second of the clip."""

    def __post_init__(self) -> None:
        frames = self.frames
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
            raise ValueError(f"frames must be uint8 (F, h, w, 3) and not empty, not {frames.dtype} {frames.shape}")

    @cached_property
    def luma(self) -> np.ndarray:
        """Luma of each frame, uint8 (F, h, w); 0 is black and 255 white for every colour range of the video."""
        import cv2

        return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in self.frames])

    @property
    def short_side(self) -> int:
        """Shorter side in pixels."""
        height, width = self.frames.shape[1:3]
        return int(min(height, width))

    def spread(self, count: int) -> np.ndarray:
        """Return the numbers of at most `count` evenly spaced frames, including the first and the last."""
        total = len(self.frames)
        return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))


class Score(ABC):
    """A measured property of a clip. Whether a value is acceptable is decided by policies.

    Scores are deterministic: on one thread, the same frames give the same number on every machine of one kind.
    """

    name: ClassVar[str]
    """Column of the clips table."""
    unit: ClassVar[str]
    range: ClassVar[tuple[float, float]]
    """Smallest and largest possible value."""
    description: ClassVar[str]
    """Measured property and the meaning of a high value, for the documentation."""

    @abstractmethod
    def __call__(self, clip: ClipFrames) -> float:
        """Return the score of a clip."""
