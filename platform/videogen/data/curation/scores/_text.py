"""On-screen text: subtitles, titles and captions laid over the picture."""

from typing import ClassVar

import numpy as np

from videogen.data.curation.scores._base import ClipFrames, Score

_MAX_PLACES = 5
"""Moments of the clip that are looked at."""
_STANDING_FRAMES = 3
"""Neighbouring frames over which text stands still."""
_MIN_STANDING = 0.6
"""Share of a line's strokes that are there in all of them; texture that moves has some in one place by chance."""
_SCALES = (1, 2)
"""Strokes of `_STROKE` pixels are looked for in the frames as they are, and in frames of half the size."""
_STROKE = 5
"""Widest stroke of a letter, in pixels."""
_MIN_CONTRAST = 60
"""Luma by which a stroke is lighter, or darker, than what surrounds it."""
_LETTER_GAP = 9
"""Pixels between letters of one line, at most."""
_MIN_FILL, _MAX_FILL = 0.2, 0.8
"""Share of a line's box under strokes."""


class Text(Score):
    """Share of the picture under what looks like lines of overlaid text, averaged over time.

    Text is thin strokes, all lighter or all darker than what is behind them, many in a row that is at least twice as
    wide as high, and it stands still for three frames. This is no reader. It sees lines of letters from about
    5 pixels of height on (of 144), in any script; it misses text that moves, single letters, low contrast, and letters
    whose strokes are wider than a fourteenth of the short side; and it takes signs and fine patterns of a still
    scene for text.
    """

    name = "text"
    unit = "share of the picture"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    description = "share of the picture under what looks like overlaid lines of text; 0 has none"

    def __call__(self, clip: ClipFrames) -> float:
        """Return the share."""
        last = max(0, len(clip.luma) - _STANDING_FRAMES)
        places = np.unique(np.minimum(clip.spread(_MAX_PLACES), last))
        return float(np.mean([_text_share(clip.luma[place : place + _STANDING_FRAMES]) for place in places]))


def _text_share(luma: np.ndarray) -> float:
    """Return the share of neighbouring frames, uint8 (F, h, w), that is text in all of them."""
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
    """Return where lines of letters are, uint8 (h, w) of 0 and 1."""
    import cv2

    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (_STROKE, _STROKE))
    contrast = np.stack([cv2.morphologyEx(frame, lighter_or_darker, kernel) for frame in frames])
    at_first = (contrast[0] >= _MIN_CONTRAST).astype(np.uint8)
    # The least of all frames: what moves has its strokes elsewhere in the next one.
    strokes = (contrast.min(axis=0) >= _MIN_CONTRAST).astype(np.uint8)
    # Letters grow together into lines, but no line into the next.
    grown = cv2.morphologyEx(strokes, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_RECT, (_LETTER_GAP, 1)))
    grown = cv2.morphologyEx(grown, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_RECT, (5, 3)))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(grown, connectivity=4)
    found = np.zeros_like(strokes)
    for number in range(1, count):
        left, top, width, height, pixels = stats[number]
        box = slice(top, top + height), slice(left, left + width)
        is_line = 4 <= height <= 40 and width >= 2 * height and 2 * pixels >= height * width
        stands = strokes[box].sum() >= _MIN_STANDING * at_first[box].sum()
        if is_line and stands and _has_letters(strokes[box]):
            found[box] |= labels[box] == number
    return found


def _has_letters(strokes: np.ndarray) -> bool:
    """Return whether there are many separate strokes along a line, as letters have and edges of objects have not."""
    if not _MIN_FILL <= strokes.mean() <= _MAX_FILL:
        return False
    height, width = strokes.shape
    middle = strokes[height // 4 : max(height // 4 + 1, height - height // 4)].astype(np.int16)
    borders = np.abs(np.diff(middle, axis=1)).sum(axis=1).mean()
    return bool(borders >= max(4, width / height))
