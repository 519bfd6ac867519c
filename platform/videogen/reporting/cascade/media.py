"""Frames as text: images and videos that travel inside a single HTML page."""

import base64
import io
import math
from typing import Any

import numpy as np
from PIL import Image

_MAX_SIDE = 256
"""Pixels a side of a frame in a page; larger ones are reduced."""


def data_uri(content: bytes, mime: str) -> str:
    """Return content as a `data:` URI."""
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def sprite(frames: np.ndarray, fps: float) -> dict[str, Any]:
    """Return a clip as one WebP sheet, which a page can play in step with others (a `<video>` keeps its own clock).

    Args:
        frames: uint8 (F, H, W, 3).
        fps: frames a second; 0 for a still image.

    Returns:
        `src`, `frames`, `columns`, `width`, `height` (of a frame, as stored), `fps`.
    """
    height, width = frames.shape[1:3]
    shrink = min(1.0, _MAX_SIDE / max(height, width))
    width, height = round(width * shrink), round(height * shrink)
    images = [Image.fromarray(frame) for frame in frames]
    if shrink < 1:
        images = [image.resize((width, height), Image.Resampling.LANCZOS) for image in images]
    columns = math.ceil(math.sqrt(len(images)))
    sheet = Image.new("RGB", (columns * width, math.ceil(len(images) / columns) * height))
    for index, image in enumerate(images):
        sheet.paste(image, (index % columns * width, index // columns * height))
    buffer = io.BytesIO()
    sheet.save(buffer, "WEBP", quality=88, method=4)
    return {
        "src": data_uri(buffer.getvalue(), "image/webp"),
        "frames": len(images),
        "columns": columns,
        "width": width,
        "height": height,
        "fps": fps,
    }
