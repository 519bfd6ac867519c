"""Contact sheet: sampled rows of a table as pictures, read for a page's cells or drawn as one PNG.

`read_rows` and `read_originals` return the rows that a page shows as cells; `render_png` draws one strip per row.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from typing import TypeGuard

import numpy as np
from PIL import Image, ImageDraw

from videogen.data.isolation import shared_decoder
from videogen.data.tables import PublishedTable, Row
from videogen.data.video import VideoError
from videogen.errors import UserError

Place = tuple[int, int]
"""Shard, and row in it."""
THUMBNAIL = "thumbnail"
"""Column of the first, middle and last frame side by side, as JPEG."""
_NOT_SHOWN = ("embedding", "prompt_embeds")
_SIDE = 128
"""Pixels a side of a frame."""
_NUM_FRAMES = 4
_MARGIN, _LINE_HEIGHT = 6, 14
_PICTURES_WIDTH = _NUM_FRAMES * (_SIDE + _MARGIN)
_WIDTH = _PICTURES_WIDTH + _MARGIN + 420
_MAX_CHARACTERS = 66
_MAX_SCORES = 8
_BACKGROUND, _FIRST_LINE, _OTHER_LINES = (250, 250, 248), (25, 25, 25), (120, 120, 120)


# --- rows --------------------------------------------------------------------------------------------------------


def evenly_spaced(total: int, at_most: int) -> np.ndarray:
    """Return up to `at_most` positions of `total`, int64, evenly spaced and the same every time."""
    num_chosen = min(total, at_most)
    return np.arange(num_chosen) * total // max(num_chosen, 1)


def read_rows(table: PublishedTable, places: Iterable[Place]) -> dict[Place, Row]:
    """Return the clips at these places that have a thumbnail."""
    wanted = sorted(set(places))
    if not wanted or THUMBNAIL not in table.shard_schema.names:
        return {}
    by_shard: dict[int, list[int]] = {}
    for shard, row in wanted:
        by_shard.setdefault(shard, []).append(row)
    terms = [f'(shard = {shard} AND "row" IN ({", ".join(map(str, rows))}))' for shard, rows in by_shard.items()]
    rows = table.rows(" OR ".join(terms), exclude=_NOT_SHOWN)
    return {place: row for place, row in zip(wanted, rows, strict=True) if row[THUMBNAIL]}


def read_originals(table: PublishedTable, clip_ids: Iterable[str]) -> dict[str, Row]:
    """Return clips with a thumbnail by their ID; empty IDs are ignored."""
    wanted = sorted(set(clip_ids) - {""})
    if not wanted or THUMBNAIL not in table.shard_schema.names:
        return {}
    quoted = ", ".join("'{}'".format(clip_id.replace("'", "''")) for clip_id in wanted)
    rows = table.rows(f"clip_id IN ({quoted})", exclude=_NOT_SHOWN)
    return {row["clip_id"]: row for row in rows if row[THUMBNAIL]}


# --- PNG ---------------------------------------------------------------------------------------------------------


def render_png(
    table: PublishedTable,
    where: str | None = None,
    num_rows: int = 24,
    advance: Callable[[], None] = lambda: None,
) -> bytes:
    """Return a PNG of rows that are evenly spaced over the table, one strip of pictures and text per row.

    A clip is shown by its thumbnail, or by frames decoded from its source if it has none. Latents are shown by frames
    of their source and, below, by their first three channels as red, green and blue.

    Args:
        table: of clips or of latents.
        where: SQL expression that selects the rows.
        num_rows: maximum number of rows.
        advance: called once per row.

    Raises:
        UserError: no row is selected, or `where` is not an expression over the index.
    """
    if num_rows < 1:
        raise UserError(f"A contact sheet cannot have {num_rows} rows: give a number from 1.")
    total = table.count(where)
    if not total:
        raise UserError(f"Table {table.uri!r} has no row to show{f' for which {where!r} holds' if where else ''}.")
    strips = []
    for row in table.rows_at(evenly_spaced(total, num_rows).tolist(), where, exclude=_NOT_SHOWN):
        strips.append(_strip(row, table.manifest.get("scores", ())))
        advance()
    return _png(_stacked(strips))


def _strip(row: Row, score_names: Sequence[str]) -> Image.Image:
    pictures, problems = _pictures(row)
    column = _stacked(pictures, margin=_MARGIN)
    lines = [*_lines(row, score_names), *problems]
    strip = Image.new("RGB", (_WIDTH, max(column.height, len(lines) * _LINE_HEIGHT + _MARGIN)), _BACKGROUND)
    strip.paste(column, (_MARGIN, 0))
    draw = ImageDraw.Draw(strip)
    for number, line in enumerate(lines):
        position = (_PICTURES_WIDTH + 2 * _MARGIN, _MARGIN + number * _LINE_HEIGHT)
        draw.text(position, _printable(line), fill=_OTHER_LINES if number else _FIRST_LINE)
    return strip


def _pictures(row: Row) -> tuple[list[Image.Image], list[str]]:
    """Return the rows of pictures that show a table row, and a line for a source that cannot be read."""
    latents = next((value for name, value in row.items() if name.startswith("latents") and _is_latents(value)), None)
    pictures: list[Image.Image] = []
    problems: list[str] = []
    if row.get(THUMBNAIL):
        pictures.append(_fit(Image.open(io.BytesIO(row[THUMBNAIL])).convert("RGB")))
    elif frames := [value for value in row.values() if _is_video(value)]:
        pictures.append(_side_by_side([frames[0][index] for index in _shown_frames(len(frames[0]))]))
    else:
        indices = row["frame_indices"]
        wanted = [indices[index] for index in _shown_frames(len(indices))]
        try:
            pictures.append(_side_by_side(shared_decoder().read_frames(row["source"], wanted, _size_like(latents))))
        except VideoError as error:
            problems.append(f"source: {error}")
    if latents is not None:
        colours = false_colour(latents)
        pictures.append(_side_by_side([colours[index] for index in _shown_frames(len(colours))]))
    return pictures, problems


def _lines(row: Row, score_names: Sequence[str]) -> list[str]:
    """Return the text beside the pictures."""
    caption = str(row.get("caption") or "(no caption)")
    starts = range(0, min(len(caption), 3 * _MAX_CHARACTERS), _MAX_CHARACTERS)
    lines = [caption[start : start + _MAX_CHARACTERS] for start in starts]
    lines += [str(row.get("clip_id", "")), str(row["source"])[-_MAX_CHARACTERS:]]
    scores = [f"{name} {row[name]:.3g}" for name in score_names if row.get(name) is not None][:_MAX_SCORES]
    lines += ["   ".join(scores[start : start + 3]) for start in range(0, len(scores), 3)]
    return lines + [f"{name} {row[name]}" for name in ("dropped_by", "duplicate_of") if row.get(name)]


def false_colour(latents: np.ndarray) -> np.ndarray:
    """Return latents (F, C, h, w) as uint8 RGB (F, h, w, 3): the first three channels, each scaled to its range."""
    channels = latents[:, :3].astype(np.float32)
    channels = np.concatenate([channels] + [channels[:, -1:]] * (3 - channels.shape[1]), axis=1)
    low, high = np.percentile(channels, (1, 99), axis=(0, 2, 3), keepdims=True)
    scaled = np.clip((channels - low) / np.maximum(high - low, 1e-6), 0, 1)
    return np.moveaxis((255 * scaled).round().astype(np.uint8), 1, -1)


def _is_video(value: object) -> TypeGuard[np.ndarray]:
    return isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 4 and value.shape[-1] == 3


def _is_latents(value: object) -> TypeGuard[np.ndarray]:
    return isinstance(value, np.ndarray) and value.ndim == 4


def _size_like(latents: np.ndarray | None) -> tuple[int, int]:
    """Return height and width of the aspect ratio of `latents` (F, C, h, w), with no side above `_SIDE`."""
    height, width = (1, 1) if latents is None else latents.shape[-2:]
    return max(1, _SIDE * height // max(height, width)), max(1, _SIDE * width // max(height, width))


def _shown_frames(num_frames: int) -> list[int]:
    """Return the indices of the frames that are shown, first and last among them."""
    return sorted({round(float(index)) for index in np.linspace(0, num_frames - 1, min(_NUM_FRAMES, num_frames))})


# --- images ------------------------------------------------------------------------------------------------------


def _side_by_side(frames: Iterable[np.ndarray]) -> Image.Image:
    """Return frames in a row, each `_SIDE` pixels high and at most as wide."""
    row = Image.new("RGB", (_PICTURES_WIDTH, _SIDE), _BACKGROUND)
    for number, frame in enumerate(frames):
        image = Image.fromarray(frame)
        scale = _SIDE / max(image.size)
        # Nearest neighbour keeps the cells of upsampled latents visible.
        resample = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        row.paste(image.resize(size, resample), (number * (_SIDE + _MARGIN), 0))
    return row


def _fit(image: Image.Image) -> Image.Image:
    """Return a thumbnail no larger than a row of frames."""
    image.thumbnail((_PICTURES_WIDTH, _SIDE))
    return image


def _stacked(images: Sequence[Image.Image], margin: int = 0) -> Image.Image:
    """Return images below each other, with a margin above, between and below them."""
    width = max((image.width for image in images), default=1)
    stack = Image.new("RGB", (width, margin + sum(image.height + margin for image in images) or 1), _BACKGROUND)
    top = margin
    for image in images:
        stack.paste(image, (0, top))
        top += image.height + margin
    return stack


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _printable(text: str) -> str:
    """Return text with the characters that Pillow's own font lacks replaced."""
    return text.encode("latin-1", errors="replace").decode("latin-1")
