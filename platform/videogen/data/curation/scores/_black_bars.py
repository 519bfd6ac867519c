"""Black bars: letterbox and pillarbox."""

from typing import ClassVar

import numpy as np

from videogen.data.curation.scores._base import ClipFrames, Score

_MAX_LUMA = 24
"""Brightest that a bar may be; black, with room for ringing and for encoders that lift it."""
_MAX_NOISE = 4.0
"""Largest standard deviation of luma in one line of a bar."""
_MIN_STEP = 10
"""Luma by which the picture must be brighter than the bar for a point of their border to count."""
_MIN_BORDER = 0.35
"""Share of the border's points that must be such a step at some moment."""
_STEP_LINES = 3
"""Lines over which scaling and coding may spread the step."""


class BlackBars(Score):
    """Share of the picture that is taken by black borders which stay the same in every frame.

    Dark is not enough: a bar is flat, and it ends at a straight line along which the picture, at some moment of the
    clip, is brighter. So a night sky counts as none, and neither does a black clip. A black sky over a straight and
    bright horizon from edge to edge is taken for a bar.
    """

    name = "black_bars"
    unit = "share of the picture"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    description = "share of the picture under static black borders; 0 has none"

    def __call__(self, clip: ClipFrames) -> float:
        """Return the share."""
        height, width = clip.luma.shape[1:]
        top, bottom = _bars(clip.luma)
        inside = clip.luma[:, top : height - bottom]
        left, right = _bars(inside.transpose(0, 2, 1))
        return 1 - (height - top - bottom) * (width - left - right) / (height * width)


def _bars(luma: np.ndarray) -> tuple[int, int]:
    """Return the number of bar lines at the start and the end of axis 1 of luma, uint8 (F, lines, points)."""
    brightest = luma.max(axis=0)
    # The 98th percentile forgives a few points, e.g. a subtitle's descender that reaches into the bar.
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
