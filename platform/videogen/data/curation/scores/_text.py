"""Overlaid text score: subtitles, titles and captions."""

from typing import ClassVar

import numpy as np

from videogen.data.curation.scores._base import ClipFrames, Score

_MAX_PLACES = 5
"""Number of positions in the clip that are examined."""
_STANDING_FRAMES = 3
"""Number of consecutive frames in which text must be static."""
_MIN_STANDING = 0.6
"""Fraction of a line's strokes that must be present in all of them; moving texture overlaps itself by chance."""
_SCALES = (1, 2)
"""Downsampling factors at which strokes of up to `_STROKE` pixels are searched."""
_STROKE = 5
"""Largest stroke width of a letter in pixels."""
_MIN_CONTRAST = 60
"""Luma difference of a stroke from its surroundings."""
_LETTER_GAP = 9
"""Largest gap between letters of a line in pixels."""
_MIN_FILL, _MAX_FILL = 0.2, 0.8
"""Fraction of a line's bounding box covered by strokes."""


class Text(Score):
    """Fraction of the picture covered by lines of overlaid text, averaged over time.

    Text is detected as thin strokes, all lighter or all darker than the background, in a row at least twice as wide as
    high, static for three frames. There is no OCR. Lines of letters from a height of about 5 pixels (of 144) are
    detected in any script. Missed: moving text, single letters, low contrast, and strokes wider than a fourteenth of
    the short side. False positives: signs and fine patterns in static scenes.
    """

    name = "text"
    unit = "share of the picture"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    description = "share of the picture under what looks like overlaid lines of text; 0 has none"

    def __call__(self, clip: ClipFrames) -> float:
        """Return the fraction."""
        last = max(0, len(clip.luma) - _STANDING_FRAMES)
        places = np.unique(np.minimum(clip.spread(_MAX_PLACES), last))
        return float(np.mean([_text_share(clip.luma[place : place + _STANDING_FRAMES]) for place in places]))


def _text_share(luma: np.ndarray) -> float:
    """Return the fraction of consecutive frames, uint8 (F, h, w), that is text in all of them."""
    import cv2

    height, width = luma.shape[1:]
    text = np.zeros((height, width), bool)
    for scale in _SCALES:
        size = max(1, width // scale), max(1, height // scale)
        frames = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in luma]
        for lighter_or_darker in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT):
            lines = _lines(frames, lighter_or_darker)
            text |= cv2.resize(lines, (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)
    return float(text.mean())


def _lines(frames: list[np.ndarray], lighter_or_darker: int) -> np.ndarray:
    """Return a mask of the lines of letters, uint8 (h, w) of 0 and 1."""
    import cv2

    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (_STROKE, _STROKE))
    contrast = np.stack([cv2.morphologyEx(frame, lighter_or_darker, kernel) for frame in frames])
    at_first = (contrast[0] >= _MIN_CONTRAST).astype(np.uint8)
    # The minimum over frames suppresses moving strokes.
    strokes = (contrast.min(axis=0) >= _MIN_CONTRAST).astype(np.uint8)
    # Letters are joined into lines, but lines are kept apart.
    grown = cv2.morphologyEx(strokes, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_RECT, (_LETTER_GAP, 1)))
    grown = cv2.morphologyEx(grown, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_RECT, (5, 3)))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(grown, connectivity=4)
    found: np.ndarray = np.zeros_like(strokes)
    for number in range(1, count):
        left, top, width, height, pixels = stats[number]
        box = slice(top, top + height), slice(left, left + width)
        is_line = 4 <= height <= 40 and width >= 2 * height and 2 * pixels >= height * width
        stands = strokes[box].sum() >= _MIN_STANDING * at_first[box].sum()
        if is_line and stands and _has_letters(strokes[box]):
            found[box] |= labels[box] == number
    return found


def _has_letters(strokes: np.ndarray) -> bool:
    """Return whether there are many separate strokes along a line, which tells letters from edges of objects."""
    if not _MIN_FILL <= strokes.mean() <= _MAX_FILL:
        return False
    height, width = strokes.shape
    middle = strokes[height // 4 : max(height // 4 + 1, height - height // 4)].astype(np.int16)
    borders = np.abs(np.diff(middle, axis=1)).sum(axis=1).mean()
    return bool(borders >= max(4, width / height))
