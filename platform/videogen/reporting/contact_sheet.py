"""A contact sheet: one strip of pictures a row of a table, with its caption and numbers, as one PNG."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from videogen.data.datasets.dataset import Row
from videogen.data.datasets.finished import FinishedTable
from videogen.data.isolation.decoder import shared_decoder
from videogen.data.video.frames import VideoError
from videogen.errors import UserError

_SIDE = 128
"""Pixels a side of a frame."""
_FRAMES = 4
_MARGIN, _LINE = 6, 14
_WIDTH = _FRAMES * (_SIDE + _MARGIN) + _MARGIN + 420
_MAX_LETTERS = 66
_MAX_NUMBERS = 8
_BACKGROUND, _INK, _FAINT = (250, 250, 248), (25, 25, 25), (120, 120, 120)


def contact_sheet(
    table: FinishedTable,
    where: str | None = None,
    num_rows: int = 24,
    advance: Callable[[], None] = lambda: None,
) -> bytes:
    """Return a PNG of rows that are spread evenly over the table.

    A clip is shown by its thumbnail, or else decoded again from its source. Latents are shown by their source's frames
    and, below, by their own first three channels as red, green and blue, so that the two can be compared.

    Args:
        table: of clips or of latents.
        where: SQL expression that chooses the rows.
        num_rows: how many at most.
        advance: called once a row.

    Raises:
        UserError: no row is chosen, or `where` is no expression over the index.
    """
    if num_rows < 1:
        raise UserError(f"A contact sheet of {num_rows} rows cannot be: give a number from 1.")
    total = table.count(where)
    if not total:
        raise UserError(f"Table {table.uri!r} has no row to show{f' for which {where!r} holds' if where else ''}.")
    shown = min(num_rows, total)
    positions = [index * total // shown for index in range(shown)]
    strips = []
    for row in table.rows_at(positions, where, but=("embedding", "prompt_embeds")):
        strips.append(_strip(row, table.manifest.get("scores", ())))
        advance()
    sheet = Image.new("RGB", (_WIDTH, sum(strip.height for strip in strips)), _BACKGROUND)
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _strip(row: Row, scores: Sequence[str]) -> Image.Image:
    lines = _lines(row, scores)
    latents = next((value for name, value in row.items() if _is_latents(name, value)), None)
    pictures: list[Image.Image] = []
    if row.get("thumbnail"):
        pictures.append(_fit(Image.open(io.BytesIO(row["thumbnail"])).convert("RGB")))
    elif frames := [value for value in row.values() if _is_pixels(value)]:
        pictures.append(_row_of([Image.fromarray(frames[0][index]) for index in _spread(len(frames[0]))]))
    else:
        indices = row["frame_indices"]
        wanted = [indices[index] for index in _spread(len(indices))]
        try:
            decoded = shared_decoder().read_frames(row["source"], wanted, _size_like(latents))
            pictures.append(_row_of([Image.fromarray(frame) for frame in decoded]))
        except VideoError as error:
            lines.append(f"source: {error}")
    if latents is not None:
        coloured = false_colour(latents)
        pictures.append(_row_of([Image.fromarray(coloured[index]) for index in _spread(len(coloured))]))
    height = max(sum(one.height + _MARGIN for one in pictures), len(lines) * _LINE) + _MARGIN
    strip = Image.new("RGB", (_WIDTH, height), _BACKGROUND)
    top = _MARGIN
    for picture in pictures:
        strip.paste(picture, (_MARGIN, top))
        top += picture.height + _MARGIN
    draw = ImageDraw.Draw(strip)
    for number, line in enumerate(lines):
        position = (_FRAMES * (_SIDE + _MARGIN) + 2 * _MARGIN, _MARGIN + number * _LINE)
        draw.text(position, _printable(line), fill=_INK if number == 0 else _FAINT)
    return strip


def _size_like(latents: np.ndarray | None) -> tuple[int, int]:
    """Return height and width of frames as they were encoded into `latents` (F, C, h, w), no side above `_SIDE`."""
    height, width = (1, 1) if latents is None else latents.shape[-2:]
    return max(1, _SIDE * height // max(height, width)), max(1, _SIDE * width // max(height, width))


def _lines(row: Row, scores: Sequence[str]) -> list[str]:
    """Return what stands beside the pictures."""
    caption = str(row.get("caption") or "(no caption)")
    lines = [
        caption[start : start + _MAX_LETTERS] for start in range(0, min(len(caption), 3 * _MAX_LETTERS), _MAX_LETTERS)
    ]
    lines.append(str(row.get("clip_id", "")))
    lines.append(str(row["source"])[-_MAX_LETTERS:])
    numbers = [f"{name} {row[name]:.3g}" for name in scores if row.get(name) is not None][:_MAX_NUMBERS]
    lines += ["   ".join(numbers[start : start + 3]) for start in range(0, len(numbers), 3)]
    return lines + [f"{name} {row[name]}" for name in ("dropped_by", "duplicate_of") if row.get(name)]


def false_colour(latents: np.ndarray) -> np.ndarray:
    """Return latents (F, C, h, w) as uint8 RGB (F, h, w, 3): the first three channels, each over its own range."""
    channels = latents[:, :3].astype(np.float32)
    channels = np.concatenate([channels] + [channels[:, -1:]] * (3 - channels.shape[1]), axis=1)
    low, high = np.percentile(channels, (1, 99), axis=(0, 2, 3), keepdims=True)
    scaled = np.clip((channels - low) / np.maximum(high - low, 1e-6), 0, 1)
    return np.moveaxis((255 * scaled).round().astype(np.uint8), 1, -1)


def _is_pixels(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 4 and value.shape[-1] == 3


def _is_latents(name: str, value: Any) -> bool:
    return name.startswith("latents") and isinstance(value, np.ndarray) and value.ndim == 4


def _spread(length: int) -> list[int]:
    """Return the numbers of the frames that are shown, first and last among them."""
    return sorted({round(float(index)) for index in np.linspace(0, length - 1, min(_FRAMES, length))})


def _row_of(images: Sequence[Image.Image]) -> Image.Image:
    """Return images beside each other, each `_SIDE` pixels high and at most as wide."""
    row = Image.new("RGB", (_FRAMES * (_SIDE + _MARGIN), _SIDE), _BACKGROUND)
    for number, image in enumerate(images):
        shrink = _SIDE / max(image.size)
        # Enlarged latents keep their cells.
        how = Image.Resampling.NEAREST if shrink > 1 else Image.Resampling.LANCZOS
        size = (max(1, round(image.width * shrink)), max(1, round(image.height * shrink)))
        row.paste(image.resize(size, how), (number * (_SIDE + _MARGIN), 0))
    return row


def _fit(image: Image.Image) -> Image.Image:
    """Return a thumbnail, which has its frames side by side, no larger than a row of frames."""
    image.thumbnail((_FRAMES * (_SIDE + _MARGIN), _SIDE))
    return image


def _printable(text: str) -> str:
    """Return text that Pillow's own font has the letters of."""
    return text.encode("latin-1", errors="replace").decode("latin-1")
