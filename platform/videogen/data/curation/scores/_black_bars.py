"""Black bar score: letterbox and pillarbox borders."""

from typing import ClassVar

import numpy as np

from videogen.data.curation.scores._base import ClipFrames, Score

_MAX_LUMA = 24
"""Largest luma of a bar; black with a margin for ringing and raised black levels."""
_MAX_NOISE = 4.0
"""Largest standard deviation of luma in one line of a bar."""
_MIN_STEP = 10
"""Luma step from the bar to the picture at which a point of the border counts."""
_MIN_BORDER = 0.35
"""Fraction of the border's points that must show such a step in some frame."""
_STEP_LINES = 3
"""Number of lines over which scaling and compression may spread the step."""


class BlackBars(Score):
    """Fraction of the picture under static black borders.

    A bar is uniform and ends at a straight line along which the picture is brighter in some frame. A night sky or a
    black clip is therefore no bar. A black sky over a straight, bright horizon from edge to edge is a false positive.
    """

    name = "black_bars"
    unit = "share of the picture"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    description = "share of the picture under static black borders; 0 has none"

    def __call__(self, clip: ClipFrames) -> float:
        """Return the fraction."""
        height, width = clip.luma.shape[1:]
        top, bottom = _bars(clip.luma)
        inside = clip.luma[:, top : height - bottom]
        left, right = _bars(inside.transpose(0, 2, 1))
        return float(1 - (height - top - bottom) * (width - left - right) / (height * width))


def _bars(luma: np.ndarray) -> tuple[int, int]:
    """Return the number of bar lines at the start and the end of axis 1 of luma, uint8 (F, lines, points)."""
    brightest = luma.max(axis=0)
    # The 98th percentile tolerates a few points, e.g. a subtitle's descender that reaches into the bar.
    black = np.percentile(brightest, 98, axis=1) <= _MAX_LUMA
    flat = luma.std(axis=2, dtype=np.float32).max(axis=0) <= _MAX_NOISE
    bar = black & flat
    if bar.all():
        return 0, 0
    return _from_start(bar, brightest), _from_start(bar[::-1], brightest[::-1])


def _from_start(bar: np.ndarray, brightest: np.ndarray) -> int:
    size = int(np.argmin(bar))
    if size == 0:
        return 0
    level = np.median(brightest[:size])
    beyond = brightest[size : size + _STEP_LINES].max(axis=0)
    return size if np.mean(beyond >= level + _MIN_STEP) >= _MIN_BORDER else 0
