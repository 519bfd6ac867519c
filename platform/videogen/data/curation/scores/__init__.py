"""Scores of clips: one file a score, behind one interface, none of which judges.

To add one, write a sub-class of `Score` in a file of its own and name it in `SCORES`.
"""

from videogen.data.curation.scores._score import Score
from videogen.data.curation.scores.black_bars import BlackBars
from videogen.data.curation.scores.brightness import Brightness
from videogen.data.curation.scores.motion import Motion
from videogen.data.curation.scores.perceptual_hash import perceptual_hash
from videogen.data.curation.scores.sharpness import Sharpness
from videogen.data.curation.scores.text import Text
from videogen.data.curation.scores.watermark import Watermark

SCORES: dict[str, Score] = {
    score.name: score for score in (Motion(), Sharpness(), Brightness(), BlackBars(), Text(), Watermark())
}
"""Every score that needs no weights, by name."""

__all__ = ["SCORES", "BlackBars", "Brightness", "Motion", "Score", "Sharpness", "Text", "Watermark", "perceptual_hash"]
