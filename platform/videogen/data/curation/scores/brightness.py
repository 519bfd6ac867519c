"""Brightness of a clip."""

from typing import ClassVar

from videogen.data.curation.clip_frames import ClipFrames
from videogen.data.curation.scores._score import Score


class Brightness(Score):
    """Mean luma over all pixels and frames."""

    name = "brightness"
    unit = "luma, 0 to 255"
    range: ClassVar[tuple[float, float]] = (0.0, 255.0)
    description = "mean luma of all pixels; 0 is a black clip, 255 a white one"

    def __call__(self, clip: ClipFrames) -> float:
        """Return the mean; frames are of full range by then, also where the video's is limited (16 to 235)."""
        return float(clip.luma.mean(dtype="float64"))
