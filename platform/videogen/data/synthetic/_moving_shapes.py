"""Moving-shapes world: captioned clips whose colour, shape and direction can be measured from pixels.

A clip shows one saturated, anti-aliased shape that moves in a straight line over a static, textured background of low
saturation. Background, start position and size depend on the seed and are not in the caption, so a generator can only
infer them from the reference image. Whole (colour, shape, direction) combinations are held out of training.
"""

import functools
import re
from dataclasses import dataclass

import numpy as np

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.08, 0.08),
    "green": (0.08, 0.78, 0.12),
    "blue": (0.10, 0.16, 0.92),
    "yellow": (0.92, 0.88, 0.06),
    "cyan": (0.06, 0.84, 0.88),
    "magenta": (0.88, 0.08, 0.84),
}
"""Gamma-encoded RGB in [0, 1] of each colour word."""

SHAPES: tuple[str, ...] = ("circle", "square", "triangle")

DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
"""Unit step (x, y) of each direction word, y pointing down as in an image."""

SPEEDS: dict[str, float] = {"slowly": 10 / 64, "normal": 20 / 64, "quickly": 32 / 64}
"""Displacement over the whole clip as a fraction of the frame's side."""

RADIUS_RANGE = (9 / 64, 12 / 64)
"""Smallest and largest shape radius as fractions of the frame's side."""

NUM_FRAMES = 15
FPS = 16.0
SIZE = 64

_GRAMMAR = re.compile(
    rf"a (?P<colour>{'|'.join(COLOURS)}) (?P<shape>{'|'.join(SHAPES)}) "
    rf"moving (?P<direction>{'|'.join(DIRECTIONS)})(?: (?P<speed>slowly|quickly))?"
)
_BACKGROUND_STREAM, _PLACEMENT_STREAM = 0, 1


@dataclass(frozen=True)
class Attributes:
    """Attributes in a caption of the world."""

    colour: str
    shape: str
    direction: str
    speed: str = "normal"

    def __post_init__(self) -> None:
        for field, known in (("colour", COLOURS), ("shape", SHAPES), ("direction", DIRECTIONS), ("speed", SPEEDS)):
            if getattr(self, field) not in known:
                raise ValueError(f"{field} is {getattr(self, field)!r}, but must be one of {', '.join(known)}")

    @property
    def caption(self) -> str:
        """Caption from which `parse_caption` returns these attributes."""
        ending = "" if self.speed == "normal" else f" {self.speed}"
        return f"a {self.colour} {self.shape} moving {self.direction}{ending}"

    @property
    def held_out(self) -> bool:
        """Whether the (colour, shape, direction) combination is excluded from training, at every speed.

        The exclusions form a Latin square: every pair of colour, shape and direction occurs in training, but not all
        three together, so a model that has learned the words can compose the held-out captions.
        """
        colour, shape = list(COLOURS).index(self.colour), SHAPES.index(self.shape)
        return list(DIRECTIONS).index(self.direction) == (colour + shape) % len(DIRECTIONS)


def parse_caption(caption: str) -> Attributes | None:
    """Return the attributes in `caption`, or None if it is not a caption of the world."""
    match = _GRAMMAR.fullmatch(" ".join(caption.lower().split()).rstrip("."))
    if match is None:
        return None
    return Attributes(match["colour"], match["shape"], match["direction"], match["speed"] or "normal")


def all_attributes() -> list[Attributes]:
    """Return all attribute combinations in a fixed order."""
    return [
        Attributes(colour, shape, direction, speed)
        for colour in COLOURS
        for shape in SHAPES
        for direction in DIRECTIONS
        for speed in SPEEDS
    ]


def train_captions() -> list[str]:
    """Return the 162 captions of the training set."""
    return [attributes.caption for attributes in all_attributes() if not attributes.held_out]


def held_out_captions() -> list[str]:
    """Return the 54 captions with held-out combinations."""
    return [attributes.caption for attributes in all_attributes() if attributes.held_out]


def render_clip(attributes: Attributes, seed: int, num_frames: int = NUM_FRAMES, size: int = SIZE) -> np.ndarray:
    """Render one clip.

    Args:
        attributes: colour, shape, direction and speed.
        seed: random seed of background, start position, size and shade.
        num_frames: number of frames over which the displacement is spread.
        size: side of the square frame in pixels.

    Returns:
        uint8 RGB frames, shape (num_frames, size, size, 3). The shape lies within every frame.
    """
    rng = np.random.default_rng([_PLACEMENT_STREAM, seed])
    radius = rng.uniform(*RADIUS_RANGE) * size
    shade = rng.uniform(0.88, 1.0)
    centres = _path(rng, attributes, radius, num_frames, size)
    coverage = _coverage(attributes.shape, centres, radius, size)[..., None]
    background = _background(seed, size).astype(np.float32)
    colour = np.asarray(COLOURS[attributes.colour], np.float32) * np.float32(shade)
    frames: np.ndarray = background + coverage * (colour - background)
    return (frames * 255 + 0.5).astype(np.uint8)


def _path(rng: np.random.Generator, attributes: Attributes, radius: float, num_frames: int, size: int) -> np.ndarray:
    """Return the shape's centre in each frame, (num_frames, 2) as (x, y) in pixels, with the shape inside the frame."""
    step = np.asarray(DIRECTIONS[attributes.direction], np.float64)
    displacement = step * SPEEDS[attributes.speed] * size
    # Margin for the outermost anti-aliased pixel.
    reach = radius + 1.0
    lowest = reach - np.minimum(displacement, 0)
    highest = size - reach - np.maximum(displacement, 0)
    start = lowest + rng.uniform(size=2) * (highest - lowest)
    progress = np.arange(num_frames) / max(num_frames - 1, 1)
    return start + progress[:, None] * displacement


def _coverage(shape: str, centres: np.ndarray, radius: float, size: int) -> np.ndarray:
    """Return the coverage of each pixel by the shape, float32 (num_frames, size, size) in [0, 1].

    The signed distance to the outline, clipped to half a pixel on either side, is an analytic box-filter
    approximation: anti-aliased at any sub-pixel position without supersampling.
    """
    pixels = np.arange(size, dtype=np.float32) + 0.5
    x = pixels[None, None, :] - centres[:, 0, None, None].astype(np.float32)
    y = pixels[None, :, None] - centres[:, 1, None, None].astype(np.float32)
    if shape == "circle":
        distance = np.sqrt(x * x + y * y) - radius
    elif shape == "square":
        distance = np.maximum(np.abs(x), np.abs(y)) - 0.88 * radius
    else:
        # Equilateral, tip up, its bounding box centred: the three half-planes have inradius 0.6 of the radius.
        y = y - 0.3 * radius
        slanted = np.float32(np.sqrt(3) / 2) * np.abs(x) - 0.5 * y
        distance = np.maximum(slanted, y) - 0.6 * radius
    coverage: np.ndarray = np.clip(0.5 - distance, 0, 1)
    return coverage.astype(np.float32)


def _background(seed: int, size: int) -> np.ndarray:
    """Return a static texture, float (size, size, 3): three octaves of smooth noise, a faint grating, a slight tint."""
    rng = np.random.default_rng([_BACKGROUND_STREAM, seed])
    luminance = np.full((size, size), rng.uniform(0.30, 0.68))
    for cells, amplitude in ((3, 0.14), (6, 0.09), (13, 0.05)):
        weights = _interpolation(cells, size)
        luminance += amplitude * (weights @ rng.uniform(-1, 1, (cells + 1, cells + 1)) @ weights.T)
    angle, cycles, phase = rng.uniform(0, np.pi), rng.uniform(2, 6), rng.uniform(0, 2 * np.pi)
    line = np.linspace(0, 2 * np.pi * cycles, size)
    luminance += 0.04 * np.sin(line[:, None] * np.sin(angle) + line[None, :] * np.cos(angle) + phase)
    tint = rng.uniform(-0.05, 0.05, 3)
    weights = _interpolation(2, size)
    drift = np.stack([weights @ rng.uniform(-0.03, 0.03, (3, 3)) @ weights.T for _ in range(3)], axis=-1)
    texture: np.ndarray = np.clip(luminance[..., None] + tint + drift, 0, 1)
    return texture


@functools.lru_cache(maxsize=32)
def _interpolation(cells: int, size: int) -> np.ndarray:
    """Return the (size, cells + 1) matrix that smoothly interpolates a line of cells + 1 random values."""
    position = np.linspace(0, cells, size)
    left = np.minimum(position.astype(int), cells - 1)
    blend = position - left
    blend = blend * blend * (3 - 2 * blend)
    weights = np.zeros((size, cells + 1))
    weights[np.arange(size), left] = 1 - blend
    weights[np.arange(size), left + 1] = blend
    return weights
