"""Motion score by optical flow."""

import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from videogen.data.curation.scores._base import ClipFrames, Score

if TYPE_CHECKING:
    import cv2

_MAX_PAIRS = 16
"""Largest number of frame pairs, evenly spaced; flow is the most expensive score."""
_MIN_SIDE = 32
"""Smallest side in pixels for which flow is defined; smaller pictures are upsampled."""
_REGION = 11
"""Side in pixels of the box over which flow vectors are averaged, so that the flow of noise cancels out."""
_SMOOTHING = 1.2
"""Standard deviation in pixels of the Gaussian filter that removes grain."""
_NOISE_LEFT = 1 / (2 * math.sqrt(math.pi) * _SMOOTHING)
"""Fraction of white noise that this filter leaves."""
_MIN_STRUCTURE = 2.5
"""Contrast from which a region counts as structure, in standard deviations of its noise."""


class Motion(Score):
    """Mean length of the optical flow (dense inverse search, Kroeger et al. 2016) over the picture and the clip.

    Regions that contain only noise do not count as moving.
    """

    name = "motion"
    unit = "short sides a second"
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    description = "mean speed of the picture's points in lengths of its shorter side a second; 0 is a still picture"

    def __call__(self, clip: ClipFrames) -> float:
        """Return the mean; 0 for a clip of a single frame."""
        import cv2

        if len(clip.luma) < 2:
            return 0.0
        flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        last = len(clip.luma) - 1
        firsts = np.unique(np.linspace(0, last - 1, min(_MAX_PAIRS, last)).round().astype(int))
        speeds = [_speed(flow, _upsampled(clip.luma[first]), _upsampled(clip.luma[first + 1])) for first in firsts]
        return float(np.mean(speeds)) * clip.fps


def _upsampled(luma: np.ndarray) -> np.ndarray:
    import cv2

    factor = math.ceil(_MIN_SIDE / min(luma.shape))
    return cv2.resize(luma, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR) if factor > 1 else luma


def _speed(flow_of: "cv2.DISOpticalFlow", luma: np.ndarray, later: np.ndarray) -> float:
    """Return the mean motion between two frames, uint8 (h, w) each, in short sides."""
    import cv2

    smooth, smooth_later = (cv2.GaussianBlur(frame, (5, 5), _SMOOTHING) for frame in (luma, later))
    # None rather than zeros, which would be an initial guess and bias fast motion; OpenCV's stubs omit None.
    flow = flow_of.calc(smooth, smooth_later, None)  # type: ignore[call-overload]
    flow = cv2.blur(flow, (_REGION, _REGION))
    length = np.hypot(flow[..., 0], flow[..., 1]) * _has_structure(luma, smooth)
    return float(length.mean(dtype=np.float64) / min(luma.shape))


def _has_structure(luma: np.ndarray, smooth: np.ndarray) -> np.ndarray:
    """Return a mask of the regions with structure beyond noise, bool (h, w)."""
    import cv2

    # Immerkaer's filter (1996) responds to noise but hardly to edges; the lowest tenth of the responses is pure noise.
    noise_filter = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = cv2.blur(np.abs(cv2.filter2D(luma, cv2.CV_32F, noise_filter)), (_REGION, _REGION))
    noise = float(np.percentile(response, 10)) * math.sqrt(math.pi / 2) / 6
    values = smooth.astype(np.float32)
    mean, mean_square = (cv2.blur(power, (_REGION, _REGION)) for power in (values, values**2))
    structured: np.ndarray = np.sqrt(np.maximum(mean_square - mean**2, 0)) >= _MIN_STRUCTURE * _NOISE_LEFT * noise
    return structured
