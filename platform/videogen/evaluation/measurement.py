"""Measurement of moving-shapes videos from pixels: colour, shape, direction, speed, smoothness.

The measurement depends on the world's vocabulary only, so it treats a rendered clip, a decoded mp4 and a generated
video alike. It tolerates imperfect videos: blurred outlines, tinted backgrounds, a second blob, frames without a shape.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.ndimage  # type: ignore[import-untyped]

from videogen.data.synthetic import COLOURS, SHAPES

_MIN_CHROMA = 24.0
"""Chroma (of 255) below which a pixel is always background."""
_RELATIVE_CHROMA = 0.4
"""Share of the chroma of the clip's most saturated pixels above which a pixel belongs to the shape."""
_MIN_AREA = 6.0
"""Minimum area of a shape in pixels."""
_MIN_DRIFT = 1.0
"""Minimum distance in pixels over the clip for a direction."""
_SIDE = 32
"""Side S of the grid on which shape templates are compared."""
_EXTENT = 1.25
"""Half width of that grid, in square roots of the shape's area (a triangle extends 0.88 from its centroid)."""


@dataclass(frozen=True)
class Measurement:
    """Content of one clip; an attribute that cannot be measured is None."""

    colour: str | None
    shape: str | None
    direction: str | None
    displacement_px: float
    """Distance from the first to the last frame along a robust linear fit, in pixels."""
    speed_px: float
    """Pixels per frame along the same fit."""
    smoothness: float
    """1 for equal steps from frame to frame, near 0 for steps that alternate between none and double."""
    visible: float
    """Share of the frames with a shape."""
    confidence: float
    """Margin of the best matching template over the second best, 0..1."""

    def shows(self, colour: str, shape: str, direction: str) -> bool:
        """Return whether colour, shape and direction are all as asked."""
        return (self.colour, self.shape, self.direction) == (colour, shape, direction)


_NOTHING = Measurement(None, None, None, 0.0, 0.0, 0.0, 0.0, 0.0)


def measure(frames: np.ndarray) -> Measurement:
    """Measure one clip, uint8 (F, H, W, 3)."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames must be uint8 (F, H, W, 3), not {frames.dtype} {frames.shape}")
    opponent = _opponent(frames)
    mask = _segment(opponent)
    if not mask.any():
        return _NOTHING
    colour, coverage = _colour_and_coverage(opponent, mask)
    # A blob with a different hue than the clip's has no coverage along the clip's hue.
    visible = coverage.sum(axis=(1, 2)) >= _MIN_AREA / 2
    if not visible.any():
        return _NOTHING
    times = np.flatnonzero(visible).astype(np.float64)
    centres = np.stack([_centroid(one) for one in coverage[visible]])
    shape, confidence = _shape(coverage[visible], centres)
    velocity = _velocity(times, centres)
    displacement = float(np.hypot(*velocity)) * (len(frames) - 1)
    return Measurement(
        colour=colour,
        shape=shape,
        direction=_direction(velocity) if displacement >= _MIN_DRIFT else None,
        displacement_px=displacement,
        speed_px=float(np.hypot(*velocity)),
        smoothness=_smoothness(times, centres, velocity),
        visible=float(visible.mean()),
        confidence=confidence,
    )


def _opponent(frames: np.ndarray) -> np.ndarray:
    """Return the pixels in opponent colour space: grey is the origin, the angle is the hue; float32 (F, H, W, 2).

    The clip's median (the background's tint) is subtracted.
    """
    red, green, blue = np.moveaxis(frames.astype(np.float32), -1, 0)
    opponent: np.ndarray = np.stack([red - (green + blue) / 2, (green - blue) * np.float32(np.sqrt(3) / 2)], axis=-1)
    opponent -= np.median(opponent[:, ::2, ::2].reshape(-1, 2), axis=0)
    return opponent


def _segment(opponent: np.ndarray) -> np.ndarray:
    """Return the saturated blob of each frame, bool (F, H, W); empty where there is none."""
    chroma = np.hypot(opponent[..., 0], opponent[..., 1])
    saturated = np.partition(chroma.ravel(), -max(1, chroma.size // 100))[-max(1, chroma.size // 100)]
    raw: np.ndarray = chroma > max(_MIN_CHROMA, _RELATIVE_CHROMA * saturated)
    # All frames are labelled at once; a structure without links in time keeps the blobs of different frames separate.
    structure = np.zeros((3, 3, 3), dtype=bool)
    structure[1] = True
    labels, count = scipy.ndimage.label(raw, structure)
    if not count:
        return raw
    weight = np.bincount(labels.ravel(), weights=chroma.ravel(), minlength=count + 1)
    weight[np.bincount(labels.ravel(), minlength=count + 1) < _MIN_AREA] = 0.0
    weight[0] = 0.0
    mask = np.zeros_like(raw)
    for frame_mask, frame_labels in zip(mask, labels, strict=True):
        present = np.unique(frame_labels)
        best = present[np.argmax(weight[present])]
        if weight[best] > 0:
            frame_mask[:] = frame_labels == best
    return mask


def _colour_and_coverage(opponent: np.ndarray, mask: np.ndarray) -> tuple[str, np.ndarray]:
    """Return the colour's name by a vote of the blob's pixels, and its coverage of each pixel, 0..1 (F, H, W)."""
    names = tuple(COLOURS)
    pixels = opponent[mask]
    hues = np.stack([_hue(COLOURS[name]) for name in names])
    votes = np.bincount(np.argmax(pixels @ hues.T, axis=1), weights=np.hypot(*pixels.T), minlength=len(names))
    winner = int(np.argmax(votes))
    # Coverage is measured along the shape's actual hue, which may differ slightly from the named one.
    own = pixels[np.argmax(pixels @ hues.T, axis=1) == winner].mean(axis=0)
    along = opponent @ (own / np.linalg.norm(own))
    full = max(float(np.percentile(along[mask], 80)), _MIN_CHROMA)
    structure = np.zeros((3, 3, 3), dtype=bool)
    structure[1] = True
    near = scipy.ndimage.binary_dilation(mask, structure, iterations=2)
    return names[winner], np.where(near, np.clip(along / full, 0.0, 1.0), 0.0)


def _hue(rgb: Sequence[float]) -> np.ndarray:
    """Return a colour's unit vector in the opponent plane."""
    red, green, blue = (float(value) for value in rgb)
    vector = np.array([red - (green + blue) / 2, (green - blue) * np.sqrt(3) / 2], dtype=np.float32)
    unit: np.ndarray = vector / np.linalg.norm(vector)
    return unit


def _centroid(coverage: np.ndarray) -> np.ndarray:
    """Return the centre of mass (x, y) in pixels, y downwards."""
    height, width = coverage.shape
    total = coverage.sum()
    moments = np.array([coverage.sum(axis=0) @ np.arange(width), coverage.sum(axis=1) @ np.arange(height)])
    centroid: np.ndarray = moments / total
    return centroid


def _shape(coverage: np.ndarray, centres: np.ndarray) -> tuple[str, float]:
    """Return the best matching shape, and its margin over the second best.

    The frames' masks are aligned to a common centre and area and averaged, which removes noise and pixel aliasing; the
    average is compared with every shape in every rotation.
    """
    areas = coverage.sum(axis=(1, 2))
    # A shape cut off by the frame's edge has the wrong outline: it is ignored unless all are cut off.
    whole = ~_touches_edge(coverage)
    chosen = np.flatnonzero(whole) if whole.any() else np.arange(len(coverage))
    # Frames whose blob is half or double the median area are ignored too.
    typical = np.median(areas[chosen])
    usual = np.abs(np.log(areas[chosen] / typical)) < 0.5
    chosen = chosen[usual] if usual.any() else chosen
    scale = np.sqrt(typical) * 2 * _EXTENT / _SIDE
    grid = (np.arange(_SIDE) - (_SIDE - 1) / 2) * scale
    outline = np.zeros((_SIDE, _SIDE))
    for index in chosen:
        x, y = centres[index]
        rows, columns = np.meshgrid(grid + y, grid + x, indexing="ij")
        outline += scipy.ndimage.map_coordinates(coverage[index], [rows, columns], order=1, mode="constant")
    flat = (outline / len(chosen)).ravel()
    templates, owners = _templates()
    # Soft intersection over union; unlike correlation it penalises a different extent.
    intersection = np.minimum(templates, flat).sum(axis=1)
    iou = intersection / (templates.sum(axis=1) + flat.sum() - intersection)
    scores = np.array([iou[owners == index].max() for index in range(len(SHAPES))])
    order = np.argsort(scores)[::-1]
    return tuple(SHAPES)[order[0]], float(scores[order[0]] - scores[order[1]])


def _touches_edge(coverage: np.ndarray) -> np.ndarray:
    """Return for each frame whether the shape touches the frame's edge, bool (F,)."""
    edges = [coverage[:, 0], coverage[:, -1], coverage[:, :, 0], coverage[:, :, -1]]
    touches: np.ndarray = np.logical_or.reduce([edge.max(axis=1) > 0.5 for edge in edges])
    return touches


@functools.cache
def _templates() -> tuple[np.ndarray, np.ndarray]:
    """Return templates of every shape in every rotation, float (T, S*S), and the index of each template's shape (T,).

    Templates have unit area in normalised units, are anti-aliased, and are blurred like 4:2:0 chroma in an mp4.
    """
    fine = 8
    axis = (np.arange(_SIDE * fine) + 0.5) / (_SIDE * fine) * 2 * _EXTENT - _EXTENT
    x, y = np.meshgrid(axis, axis)
    rows, owners = [], []
    for index, name in enumerate(SHAPES):
        # A triangle has a rotational symmetry of 120 degrees, a square of 90.
        for angle in np.deg2rad(np.arange(0.0, {"circle": 1.0, "square": 90.0, "triangle": 120.0}[name], 6.0)):
            turned_x, turned_y = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
            inside = _inside(name, turned_x, turned_y).astype(np.float64)
            coarse = inside.reshape(_SIDE, fine, _SIDE, fine).mean(axis=(1, 3))
            rows.append(scipy.ndimage.gaussian_filter(coarse, 1.0).ravel())
            owners.append(index)
    return np.stack(rows), np.array(owners)


def _inside(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return a mask of the points in the shape of unit area centred at the origin."""
    inside: np.ndarray
    if name == "circle":
        inside = np.hypot(x, y) <= np.sqrt(1 / np.pi)
    elif name == "square":
        inside = np.maximum(np.abs(x), np.abs(y)) <= 0.5
    else:
        # Equilateral: the distance from the centroid to each side is 1 / sqrt(3 sqrt(3)).
        normals = [(np.cos(angle), np.sin(angle)) for angle in np.deg2rad([90.0, 210.0, 330.0])]
        inside = np.maximum.reduce([x * a + y * b for a, b in normals]) <= 1 / np.sqrt(3 * np.sqrt(3))
    return inside


def _velocity(times: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the median of all pairwise slopes (Theil-Sen), (x, y) in pixels per frame; robust to a few outliers."""
    first, second = np.triu_indices(len(times), k=1)
    if not len(first):
        return np.zeros(2)
    slopes = (centres[second] - centres[first]) / (times[second] - times[first])[:, None]
    velocity: np.ndarray = np.median(slopes, axis=0)
    return velocity


def _direction(velocity: np.ndarray) -> str:
    """Return the direction along the dominant axis of motion; y points down."""
    x, y = velocity
    if abs(x) >= abs(y):
        return "right" if x > 0 else "left"
    return "down" if y > 0 else "up"


def _smoothness(times: np.ndarray, centres: np.ndarray, velocity: np.ndarray) -> float:
    """Return 1 - (deviation of the frame-to-frame steps / mean step), at least 0.

    A clip that repeats each key frame once moves by 0, 2v, 0, 2v and scores 0; uniform motion scores 1.
    """
    speed = float(np.hypot(*velocity))
    if len(times) < 3 or speed * (times[-1] - times[0]) < _MIN_DRIFT:
        return 0.0
    steps = np.diff(centres, axis=0) / np.diff(times)[:, None] - velocity
    return max(0.0, 1.0 - float(np.sqrt((steps**2).sum(axis=1).mean())) / speed)
