"""Sharpness of a clip, for finding the blurred ones."""

from typing import ClassVar

import numpy as np

from videogen.data.curation.clip_frames import ClipFrames
from videogen.data.curation.scores._score import Score


class Sharpness(Score):
    """Variance of the Laplacian of luma (Pech-Pacheco et al. 2000) in the sharpest frame.

    The sharpest frame, because motion blurs single frames of good clips, while a clip out of focus has no sharp one.
    Contrast and noise count as sharpness; a wall in focus does not. What is measured is sharpness at the scale of
    `ClipFrames`: a 4K video that is soft only at full size is sharp here, as it will be for a model of that scale.
    """

    name = "sharpness"
    unit = "squared luma"
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    description = "variance of the Laplacian in the sharpest frame; low is blurred, high is sharp"

    def __call__(self, clip: ClipFrames) -> float:
        """Return the variance."""
        import cv2

        edges = (cv2.Laplacian(frame, cv2.CV_32F) for frame in clip.luma)
        return max(float(np.var(edge, dtype=np.float64)) for edge in edges)
