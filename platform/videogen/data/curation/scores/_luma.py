"""Scores of luma: sharpness and brightness."""

from typing import ClassVar

import numpy as np

from videogen.data.curation.scores._base import ClipFrames, Score


class Sharpness(Score):
    """Variance of the Laplacian of luma (Pech-Pacheco et al. 2000) in the sharpest frame.

    The sharpest frame is used because motion blurs single frames of good clips, while a clip out of focus has no sharp
    frame. Contrast and noise increase the score; a uniform surface in focus scores low. Sharpness is measured at the
    scale of `ClipFrames`: a 4K video that is soft only at full size counts as sharp.
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


class Brightness(Score):
    """Mean luma over all pixels and frames."""

    name = "brightness"
    unit = "luma, 0 to 255"
    range: ClassVar[tuple[float, float]] = (0.0, 255.0)
    description = "mean luma of all pixels; 0 is a black clip, 255 a white one"

    def __call__(self, clip: ClipFrames) -> float:
        """Return the mean of full-range luma, also for videos of limited range (16 to 235)."""
        return float(clip.luma.mean(dtype="float64"))
