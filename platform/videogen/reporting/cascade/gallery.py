"""Gallery of the cascade report: one row per generated video, with its score and the output of every stage."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from videogen import storage
from videogen.evaluation.faithfulness import ATTRIBUTES
from videogen.evaluation.psnr import ImageDecoder
from videogen.reporting.page import data_uri
from videogen.stages import CascadeConfig, stage_definition

_MAX_EXAMPLES = 120
"""Rows of the gallery; a longer page is slow to open."""
_MAX_SIDE = 256
"""Pixels a side of a frame in the page; larger frames are reduced."""


def choose_examples(
    videos: Sequence[Mapping[str, Any]], scores: Mapping[str, Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Return the videos to show; if there are too many, wrong ones are preferred."""
    if len(videos) <= _MAX_EXAMPLES:
        return list(videos)
    wrong = {row["id"] for row in videos if not scores.get(row["id"], {"correct": True})["correct"]}
    chosen = {row["id"] for row in sorted(videos, key=lambda row: row["id"] not in wrong)[:_MAX_EXAMPLES]}
    return [row for row in videos if row["id"] in chosen]


def example(
    row: Mapping[str, Any],
    score: Mapping[str, Any] | None,
    generated: str,
    config: CascadeConfig,
    decoder: ImageDecoder,
) -> dict[str, Any]:
    """Return one row of the gallery: prompt, score, and a sprite for each stage."""
    from videogen.data.isolation import shared_decoder
    from videogen.data.video import VideoError

    shown: dict[str, Any] = {name: row[name] for name in ("id", "prompt", "seed", "error")}
    shown |= {"mp4": None, "media": {}, "correct": None, "checks": []}
    if score:
        shown["correct"] = score["correct"]
        shown["checks"] = [{"name": name, **score[name]} for name in ATTRIBUTES]
    if row["status"] != "ok":
        return shown
    try:
        content = storage.read_bytes(row["video"])
        frames = shared_decoder().read_frames(content, range(row["num_frames"]), (row["height"], row["width"]))
    except (VideoError, OSError) as error:
        return shown | {"error": f"video: {error}"}
    shown["mp4"] = data_uri(content, "video/mp4")
    shown["media"] = _intermediates(
        storage.join(generated, "intermediates", f"{row['id']}.safetensors"), config, decoder
    )
    shown["media"][config.stage_names()[-1]] = sprite(frames, row["fps"])
    return shown


def _intermediates(uri: str, config: CascadeConfig, decoder: ImageDecoder) -> dict[str, Any]:
    """Return the sprites of the stages before the last; latents are shown through the image decoder."""
    from safetensors.numpy import load

    if not storage.exists(uri):
        return {}
    arrays: dict[str, np.ndarray] = load(storage.read_bytes(uri))
    found = {}
    for name in config.stage_names()[:-1]:
        preview = stage_definition(name).preview
        if preview is None or f"{name}.{preview.output}" not in arrays:
            continue
        output = arrays[f"{name}.{preview.output}"]
        if preview.output == "reference_image":
            found[name] = sprite(output[None], 0)
            continue
        frames = decoder.decode(output) if preview.output == "latents" else output
        found[name] = sprite(frames, config.output_fps if len(frames) == config.num_output_frames else config.fps)
    return found


def sprite(frames: np.ndarray, fps: float) -> dict[str, Any]:
    """Return a clip as one WebP sprite sheet, which the page plays in step with others.

    Args:
        frames: uint8 (F, H, W, 3).
        fps: frames a second; 0 for a still image.

    Returns:
        `src`, `frames`, `columns`, `width`, `height` (of a stored frame), `fps`.
    """
    height, width = frames.shape[1:3]
    scale = min(1.0, _MAX_SIDE / max(height, width))
    width, height = round(width * scale), round(height * scale)
    images = [Image.fromarray(frame) for frame in frames]
    if scale < 1:
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
