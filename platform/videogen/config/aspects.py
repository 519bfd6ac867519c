"""Aspect ratios: frame size of each, and choice of the size that a clip is cropped to.

    width : height  ->  about the preset's area, both sides multiples of the downsampling of its networks

A clip is assigned to the size whose ratio is nearest in logarithm, which crops least of it. The computation is exact,
in integers, so that encoding and training always agree about a clip between two sizes.
"""

import itertools
import math
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple, Self, overload

if TYPE_CHECKING:
    import numpy as np

SQUARE = "1:1"

_RATIO = re.compile(r"(\d{1,6}(?:\.\d{1,6})?):(\d{1,6}(?:\.\d{1,6})?)")
_MOST_CUT = Fraction(1, 4)
"""Largest part of a clip of exactly the given ratio that rounding the sides may crop."""


class FrameSize(NamedTuple):
    """Sides of a frame, or of its latents."""

    height: int
    width: int

    def scaled(self, numerator: int, denominator: int) -> Self:
        """Return the size times a fraction; the sides must stay whole."""
        return type(self)(self.height * numerator // denominator, self.width * numerator // denominator)

    def __str__(self) -> str:
        return f"{self.width} x {self.height}"


def parse_ratio(text: str) -> Fraction:
    """Return width over height of a text such as "16:9" or "2.39:1".

    Raises:
        ValueError: the text is not an aspect ratio.
    """
    match = _RATIO.fullmatch(text.strip())
    width, height = map(Fraction, match.groups()) if match else (Fraction(0), Fraction(0))
    if not width or not height:
        raise ValueError(f"{text!r} is no aspect ratio: write width:height, both above 0, e.g. 16:9 or 2.39:1")
    return width / height


def fitted_size(ratio: Fraction, side: int, multiple: int) -> FrameSize:
    """Return the size of about this ratio and the area of a square of `side`, both sides multiples of `multiple`.

    Each side is rounded to the multiple that is nearest by factor, which keeps both ratio and area.

    Raises:
        ValueError: rounding changes the shape so much that more than a quarter of a clip would be cropped.
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
    """Return the multiple nearest by factor to the square root of `squared`; at least one multiple."""
    count = math.isqrt(math.floor(squared / multiple**2))
    return multiple * max(1, count + (squared >= count * (count + 1) * multiple**2))


@overload
def nearest_size(width: int, height: int, sizes: Sequence[FrameSize]) -> int: ...


@overload
def nearest_size(width: "np.ndarray", height: "np.ndarray", sizes: Sequence[FrameSize]) -> "np.ndarray": ...


def nearest_size(width: Any, height: Any, sizes: Sequence[FrameSize]) -> Any:
    """Return the index of the size that clips of `width` x `height` are cropped to.

    Args:
        width: in pixels as displayed; an integer or an int64 array.
        height: likewise.
        sizes: from the tallest to the widest, as in `CascadeConfig.frame_sizes`.
    """
    number = width * 0
    for tall, wide in itertools.pairwise(sizes):
        # The boundary between two ratios is their geometric mean; its square is a ratio of integers.
        number = number + (width * width * (tall.height * wide.height) > height * height * (tall.width * wide.width))
    return number
