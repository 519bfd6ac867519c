"""Pictures of clips for people and for learned models, as JPEG."""

import io
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

THUMBNAIL_SIDE = 128
"""Pixels of the longer side of each of a thumbnail's three pictures."""


def thumbnail(frames: Sequence[np.ndarray]) -> bytes:
    """Return the first, the middle and the last of a clip's frames side by side, as one JPEG.

    Args:
        frames: uint8 RGB (h, w, 3) each, all of one size.
    """
    pictures = []
    for frame in (frames[0], frames[len(frames) // 2], frames[-1]):
        picture = Image.fromarray(frame)
        picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
        pictures.append(np.asarray(picture))
    return encode_jpeg(np.concatenate(pictures, axis=1), quality=80)


def encode_jpeg(frame: np.ndarray, quality: int) -> bytes:
    """Return a uint8 RGB frame (h, w, 3) as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "jpeg", quality=quality)
    return buffer.getvalue()


def decode_jpegs(pictures: Iterable[bytes]) -> np.ndarray:
    """Return JPEGs of one size as uint8 RGB, (F, h, w, 3)."""
    return np.stack([np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")) for picture in pictures])
