"""`ClipFrames`: what scores look at, the frames of one clip on one small scale."""

from dataclasses import dataclass
from functools import cached_property

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


def shrink(frame: np.ndarray, short_side: int, sample_aspect_ratio: float = 1.0) -> np.ndarray:
    """Resize a uint8 frame (H, W, 3) by area averaging until its shorter side is `short_side`; never enlarge it.

    Pixels that are shown wider or taller than `sample_aspect_ratio` 1 become square.
    """
    import cv2

    height, width = frame.shape[0] / max(1.0, sample_aspect_ratio), frame.shape[1] * min(1.0, sample_aspect_ratio)
    scale = min(1.0, short_side / min(height, width))
    if scale == sample_aspect_ratio == 1:
        return np.ascontiguousarray(frame)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(np.ascontiguousarray(frame), size, interpolation=cv2.INTER_AREA)
