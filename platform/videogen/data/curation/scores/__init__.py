"""Clip scores that need no weights: motion, sharpness, brightness, black bars, text, watermarks.

To add one, write a sub-class of `Score` in a file of its own and name it in `SCORES`.
"""

from videogen.data.curation.scores._base import SHORT_SIDE, ClipFrames, Score
from videogen.data.curation.scores._black_bars import BlackBars
from videogen.data.curation.scores._luma import Brightness, Sharpness
from videogen.data.curation.scores._motion import Motion
from videogen.data.curation.scores._text import Text
from videogen.data.curation.scores._watermark import Watermark

__all__ = [
    "SCORES",
    "SHORT_SIDE",
    "BlackBars",
    "Brightness",
    "ClipFrames",
    "Motion",
    "Score",
    "Sharpness",
    "Text",
    "Watermark",
]

SCORES: dict[str, Score] = {
    score.name: score for score in (Motion(), Sharpness(), Brightness(), BlackBars(), Text(), Watermark())
}
"""Every score that needs no weights, by name."""
