"""Tiled decoding: clips in overlapping chunks of frames and tiles of pixels, at bounded memory.

Neighbours are blended linearly over their overlap, in time and in space, so that there are no seams. A clip that fits
into one chunk and one tile is decoded whole.
"""

from collections.abc import Callable

import torch

from videogen.stages.decode.config import DecodeConfig


def decode_in_tiles(
    decode: Callable[[torch.Tensor], torch.Tensor], latents: torch.Tensor, config: DecodeConfig
) -> torch.Tensor:
    """Decode latents (B, F, C, h, w) to (B, F, 3, H, W).

    Args:
        decode: decodes one piece (B, f, C, y, x) to (B, f, 3, Y, X).
        latents: the clips.
        config: sizes and overlaps of the pieces.
    """
    frames, height, width = latents.shape[1], *latents.shape[-2:]
    in_time = _spans(frames, config.chunk_frames, config.overlap_frames)
    rows = _spans(height, config.tile_size, config.tile_overlap)
    columns = _spans(width, config.tile_size, config.tile_overlap)
    if len(in_time) == len(rows) == len(columns) == 1:
        return decode(latents)
    result = weights = None
    scale = 1
    for time in in_time:
        for row in rows:
            for column in columns:
                piece = decode(latents[:, slice(*time), :, slice(*row), slice(*column)])
                if result is None or weights is None:
                    scale = piece.shape[-1] // (column[1] - column[0])
                    result = piece.new_zeros(len(latents), frames, 3, height * scale, width * scale)
                    weights = piece.new_zeros(1, frames, 1, height * scale, width * scale)
                weight = _piece_weight(piece, (time, row, column), (frames, height, width), config, scale)
                pixels = (slice(*time), slice(None), _scaled(row, scale), _scaled(column, scale))
                result[:, *pixels] += piece * weight
                weights[:, *pixels] += weight
    assert result is not None
    assert weights is not None
    return result / weights


def _spans(length: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """Return half-open spans of `size` that cover `length` with at least `overlap` between neighbours."""
    if length <= size:
        return [(0, length)]
    starts = list(range(0, length - size, size - overlap))
    return [(start, start + size) for start in [*starts, length - size]]


def _scaled(span: tuple[int, int], scale: int) -> slice:
    return slice(span[0] * scale, span[1] * scale)


def _piece_weight(
    piece: torch.Tensor,
    spans: tuple[tuple[int, int], ...],
    lengths: tuple[int, int, int],
    config: DecodeConfig,
    scale: int,
) -> torch.Tensor:
    """Return (1, f, 1, Y, X) weights that fall linearly over the overlaps with neighbours, never to zero."""
    overlaps = (config.overlap_frames, config.tile_overlap * scale, config.tile_overlap * scale)
    factors = (1, scale, scale)
    ramps = []
    for span, length, overlap, factor in zip(spans, lengths, overlaps, factors, strict=True):
        size = (span[1] - span[0]) * factor
        position = torch.arange(size, dtype=piece.dtype, device=piece.device)
        ramp = torch.ones_like(position)
        if span[0] > 0:
            ramp = torch.minimum(ramp, (position + 1) / (overlap + 1))
        if span[1] < length:
            ramp = torch.minimum(ramp, (size - position) / (overlap + 1))
        ramps.append(ramp)
    time, row, column = ramps
    return time.reshape(1, -1, 1, 1, 1) * row.reshape(1, 1, 1, -1, 1) * column.reshape(1, 1, 1, 1, -1)
