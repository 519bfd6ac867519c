"""Watermark score: logos and other static marks over a moving picture."""

from typing import ClassVar

import numpy as np

from videogen.data.curation.scores._base import ClipFrames, Score

_MAX_FRAMES = 24
_MIN_EDGE = 8.0
"""Gradient of an edge in luma per pixel, in one frame or on average; marks of one third opacity reach it."""
_CONSTANCY = 0.5
"""Fraction of an edge's average strength that a mark keeps in nine of ten frames."""
_MIN_CHANGE = 6.0
"""Standard deviation of luma over time from which a point counts as moving."""
_MIN_SURROUNDINGS = 0.7
"""Fraction of a mark's surroundings that must move."""
_MAX_STANDING = 0.05
"""Largest fraction of static edges outside marks; above it, the camera is nearly static."""
_MIN_CORNERNESS = 0.2
"""Smallest ratio of the eigenvalues of a mark's structure tensor: marks have edges of all directions, while a long
straight edge that moves along itself seems static."""
_REACH = 4
"""Width of a mark's surroundings in pixels; strokes closer than this form one mark."""
_MIN_PIXELS = 12
_MAX_SHARE = 0.25
"""Largest fraction of the picture that a mark may cover."""


class Watermark(Score):
    """Fraction of the picture under edges that are static while everything around them moves.

    Subtitles and burnt-in captions that last for the whole clip count as marks. In mostly static clips, marks cannot be
    told from the scene: such clips score 0, as do marks over the static part of a picture.
    """

    name = "watermark"
    unit = "share of the picture"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    description = "share of the picture under edges that stand still over a moving picture; 0 has none"

    def __call__(self, clip: ClipFrames) -> float:
        """Return the fraction; clips of fewer than three frames score 0."""
        luma = clip.luma[clip.spread(_MAX_FRAMES)].astype(np.float32)
        if len(luma) < 3:
            return 0.0
        edges = _Edges(luma)
        marks = _marks(edges, luma.std(axis=0) >= _MIN_CHANGE)
        standing = (edges.constant & ~marks).mean()
        return float(marks.mean()) if standing <= _MAX_STANDING * edges.density else 0.0


class _Edges:
    """Edges of luma, float32 (F, h, w), over time.

    Attributes:
        across, down: gradient averaged over time, in luma per pixel, (h, w) each.
        constant: mask of strong and nearly always present edges, bool (h, w).
        density: fraction of the points of a frame that are edges.
    """

    def __init__(self, luma: np.ndarray) -> None:
        import cv2

        across = np.stack([cv2.Sobel(frame, cv2.CV_32F, 1, 0, scale=0.25) for frame in luma])
        down = np.stack([cv2.Sobel(frame, cv2.CV_32F, 0, 1, scale=0.25) for frame in luma])
        self.density = float((np.hypot(across, down) >= _MIN_EDGE).mean())
        self.across, self.down = across.mean(axis=0), down.mean(axis=0)
        strength = np.hypot(self.across, self.down)
        along_mean = (across * self.across + down * self.down) / np.maximum(strength, 1e-6)
        nearly_always = np.percentile(along_mean, 10, axis=0) >= _CONSTANCY * strength
        self.constant = (strength >= _MIN_EDGE) & nearly_always

    def cornerness(self, mark: np.ndarray, box: tuple[slice, slice]) -> float:
        """Return the isotropy of a mark's edges: 0 if all are parallel, 1 if all directions are equally frequent."""
        where = mark & self.constant[box]
        across, down = self.across[box][where], self.down[box][where]
        total = float((across**2 + down**2).sum())
        difference = float(np.hypot((across**2 - down**2).sum(), 2 * (across * down).sum()))
        return (total - difference) / (total + difference)


def _marks(edges: _Edges, moving: np.ndarray) -> np.ndarray:
    """Return a mask of the marks, bool (h, w)."""
    import cv2

    close = cv2.getStructuringElement(cv2.MORPH_RECT, (_REACH + 1, _REACH + 1))
    around = cv2.getStructuringElement(cv2.MORPH_RECT, (2 * _REACH + 1, 2 * _REACH + 1))
    candidates = cv2.morphologyEx(edges.constant.astype(np.uint8), cv2.MORPH_CLOSE, close)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(candidates, connectivity=8)
    marks = np.zeros(candidates.shape, bool)
    for number in range(1, count):
        left, top, width, height, pixels = stats[number]
        if not _MIN_PIXELS <= pixels <= _MAX_SHARE * candidates.size:
            continue
        # Cropped to the mark and its surroundings, because there may be thousands of marks.
        box = (
            slice(max(0, top - _REACH), top + height + _REACH),
            slice(max(0, left - _REACH), left + width + _REACH),
        )
        mark = labels[box] == number
        surroundings = cv2.dilate(mark.astype(np.uint8), around).astype(bool) & ~candidates[box].astype(bool)
        moves = bool(surroundings.any()) and moving[box][surroundings].mean() >= _MIN_SURROUNDINGS
        if moves and edges.cornerness(mark, box) >= _MIN_CORNERNESS:
            marks[box] |= mark
    return marks
