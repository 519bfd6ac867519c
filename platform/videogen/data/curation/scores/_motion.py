"""Motion in a clip, by optical flow."""

import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from videogen.data.curation.scores._base import ClipFrames, Score

if TYPE_CHECKING:
    import cv2

_MAX_PAIRS = 16
"""Pairs of neighbouring frames that are looked at, spread over the clip; flow is the dearest of all scores."""
_MIN_SIDE = 32
"""Pixels a side below which flow is not defined: smaller pictures are enlarged for it."""
_REGION = 11
"""Pixels a side over which flow is averaged as a vector: true motion is the same there, the flow of noise cancels."""
_SMOOTHING = 1.2
"""Standard deviation in pixels of the filter that is applied before: grain is no motion."""
_NOISE_LEFT = 1 / (2 * math.sqrt(math.pi) * _SMOOTHING)
"""Part of white noise that this filter leaves."""
_MIN_STRUCTURE = 2.5
"""Contrast of a region, in standard deviations of the noise in it, from which on it is structure and not noise."""


class Motion(Score):
    """Mean length of the optical flow (dense inverse search, Kroeger et al. 2016) over the picture and the clip.

    Regions in which there is nothing but noise do not count as moving.
    """

    name = "motion"
    unit = "short sides a second"
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    description = "mean speed of the picture's points in lengths of its shorter side a second; 0 is a still picture"

    def __call__(self, clip: ClipFrames) -> float:
        """Return the mean; a clip of a single frame has no motion."""
        import cv2

        if len(clip.luma) < 2:
            return 0.0
        flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        last = len(clip.luma) - 1
        firsts = np.unique(np.linspace(0, last - 1, min(_MAX_PAIRS, last)).round().astype(int))
        speeds = [_speed(flow, _enlarged(clip.luma[first]), _enlarged(clip.luma[first + 1])) for first in firsts]
        return float(np.mean(speeds)) * clip.fps


def _enlarged(luma: np.ndarray) -> np.ndarray:
    import cv2

    factor = math.ceil(_MIN_SIDE / min(luma.shape))
    return cv2.resize(luma, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR) if factor > 1 else luma


def _speed(flow_of: "cv2.DISOpticalFlow", luma: np.ndarray, later: np.ndarray) -> float:
    """Return the mean motion from one frame to the next, uint8 (h, w) each, in short sides."""
    import cv2

    smooth, smooth_later = (cv2.GaussianBlur(frame, (5, 5), _SMOOTHING) for frame in (luma, later))
    # Zeros instead of None would be a first guess, which holds fast motion back; OpenCV's types forget None.
    flow = flow_of.calc(smooth, smooth_later, None)  # type: ignore[call-overload]
    flow = cv2.blur(flow, (_REGION, _REGION))
    length = np.hypot(flow[..., 0], flow[..., 1]) * _has_structure(luma, smooth)
    return float(length.mean(dtype=np.float64)) / min(luma.shape)


def _has_structure(luma: np.ndarray, smooth: np.ndarray) -> np.ndarray:
    """Return where there is more in a picture than its noise, bool (h, w)."""
    import cv2

    # Immerkaer's filter (1996) answers to noise and hardly to edges; the quiet tenth of the picture is noise alone.
    noise_filter = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = cv2.blur(np.abs(cv2.filter2D(luma, cv2.CV_32F, noise_filter)), (_REGION, _REGION))
    noise = float(np.percentile(response, 10)) * math.sqrt(math.pi / 2) / 6
    values = smooth.astype(np.float32)
    mean, mean_square = (cv2.blur(power, (_REGION, _REGION)) for power in (values, values**2))
    return np.sqrt(np.maximum(mean_square - mean**2, 0)) >= _MIN_STRUCTURE * _NOISE_LEFT * noise
