"""Aspect ratios: the size of frames that each stands for, and to which of several sizes a clip is cut.

    width : height  ->  about the preset's area, both sides multiples of what its networks divide by

A clip goes to the size whose ratio is the nearest in logarithm, which is the one that cuts least of it away. All of it
is exact, in whole numbers: whoever encodes and whoever reads must never disagree about a clip on the edge.
"""

import itertools
import math
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple, Self

SQUARE = "1:1"

_RATIO = re.compile(r"(\d{1,6}(?:\.\d{1,6})?):(\d{1,6}(?:\.\d{1,6})?)")
_MOST_CUT = Fraction(1, 4)
"""Part of a clip of exactly the given ratio that may be lost to sides that divide."""


class FrameSize(NamedTuple):
    """Sides of a frame, or of its latents."""

    height: int
    width: int

    def scaled(self, numerator: int, denominator: int) -> Self:
        """Return the size times a fraction that gives whole sides."""
        return type(self)(self.height * numerator // denominator, self.width * numerator // denominator)

    def __str__(self) -> str:
        return f"{self.width} x {self.height}"


def parse_ratio(text: str) -> Fraction:
    """Return width over height of a text such as "16:9" or "2.39:1".

    Raises:
        ValueError: it is none.
    """
    match = _RATIO.fullmatch(text.strip())
    width, height = map(Fraction, match.groups()) if match else (Fraction(0), Fraction(0))
    if not width or not height:
        raise ValueError(f"{text!r} is no aspect ratio: write width:height, both above 0, e.g. 16:9 or 2.39:1")
    return width / height


def fitted_size(ratio: Fraction, side: int, multiple: int) -> FrameSize:
    """Return the size of about this ratio and the area of a square of `side`, both sides multiples of `multiple`.

    Each side is rounded to the multiple that it differs from by the smaller factor, so ratio and area are kept alike.

    Raises:
        ValueError: sides that divide give another shape: more than a quarter of a clip would be cut away.
    """
    size = FrameSize(_rounded(side**2 / ratio, multiple), _rounded(side**2 * ratio, multiple))
    kept = Fraction(size.width, size.height) / ratio
    if min(kept, 1 / kept) < 1 - _MOST_CUT:
        raise ValueError(
            f"an aspect ratio of {float(ratio):.4g}:1 would become {size} latents, since sides must be multiples of "
            f"{multiple}, and more than a quarter of each clip would be cut away: use a ratio nearer to 1:1, or a "
            f"larger base.latent_size"
        )
    return size


def _rounded(squared: Fraction, multiple: int) -> int:
    """Return the multiple that is nearest by factor to the root of `squared`, and at least one."""
    count = math.isqrt(math.floor(squared / multiple**2))
    return multiple * max(1, count + (squared >= count * (count + 1) * multiple**2))


def nearest_size(width: Any, height: Any, sizes: Sequence[FrameSize]) -> Any:
    """Return the number of the size that clips of `width` x `height` are cut to.

    Args:
        width: as displayed: a whole number, or an int64 array of them; likewise the height.
        height: see there.
        sizes: from the tallest to the widest, as `CascadeConfig.frame_sizes` has them.
    """
    number = width * 0
    for tall, wide in itertools.pairwise(sizes):
        # The edge between two ratios is their geometric mean; squared, it is a ratio of whole numbers.
        number = number + (width * width * (tall.height * wide.height) > height * height * (tall.width * wide.width))
    return number
