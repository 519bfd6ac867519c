"""Downsampled frames, thumbnails and JPEG encoding."""

import io
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

THUMBNAIL_SIDE = 128
"""Longer side in pixels of each of the three pictures of a thumbnail."""


def shrink(frame: np.ndarray, short_side: int, sample_aspect_ratio: float = 1.0) -> np.ndarray:
    """Downsample a uint8 frame (H, W, 3) by area averaging until its shorter side is `short_side`; never upsample it.

    Pixels with a `sample_aspect_ratio` other than 1 become square.
    """
    import cv2

    height, width = frame.shape[0] / max(1.0, sample_aspect_ratio), frame.shape[1] * min(1.0, sample_aspect_ratio)
    scale = min(1.0, short_side / min(height, width))
    if scale == sample_aspect_ratio == 1:
        return np.ascontiguousarray(frame)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(np.ascontiguousarray(frame), size, interpolation=cv2.INTER_AREA)


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
