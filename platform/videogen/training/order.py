"""Shuffled order of the rows of an epoch: random, read in few large blocks, and a pure function of a few numbers.

Rows are stored in blocks (row groups of shards), and one read returns a block. A full shuffle reads a block again for
nearly every row of it. Here blocks are shuffled, and rows are shuffled only within the blocks that are open:

    blocks, shuffled      5 2 | 7 0 | 3 6 | 1 4        dealt to lanes in equal parts, one or more rows of a batch each
    lane 0                5 2   then   7 0             rows are shuffled within a few blocks of their lane,
    lane 1                3 6   then   1 4             and a batch takes the next rows of every lane

So a batch mixes blocks from the whole table. A worker trains on the same positions of every batch, hence on its own
lanes: it opens only its share of the blocks, although the order does not depend on the number of workers. All lanes
together hold `shuffle_buffer` rows; a smaller table is shuffled fully.
"""

import itertools
from collections.abc import Sequence

import numpy as np

SHUFFLE_BUFFER = 4096
"""Rows among which the order is fully random, over all workers."""

_BLOCKS_OPEN = 2
"""Least number of blocks that a lane mixes."""


def epoch_order(
    key: Sequence[int],
    num_rows: int,
    block_ends: np.ndarray | None = None,
    shuffle_buffer: int = SHUFFLE_BUFFER,
    batch: int = 1,
    phase: int = 0,
) -> np.ndarray:
    """Return every row once, shuffled.

    Args:
        key: seed of the order, e.g. (seed, epoch).
        num_rows: rows of the epoch.
        block_ends: int64 (num_blocks,), for each block the row after its last one, ascending to `num_rows`; None if
            each row is read by itself.
        shuffle_buffer: rows among which the order is random.
        batch: rows of a global batch.
        phase: position of the epoch's first row in its batch, since an epoch may begin inside a batch.

    Returns:
        Integers (num_rows,); uint32 (4 bytes a row) unless the table is small.
    """
    rng = np.random.default_rng(tuple(key))
    if num_rows <= shuffle_buffer:
        return rng.permutation(num_rows)
    kind = np.uint32 if num_rows < 2**32 else np.uint64
    if block_ends is None or len(block_ends) == num_rows:
        rows = np.arange(num_rows, dtype=kind)
        rng.shuffle(rows)
        return rows
    blocks = rng.permutation(len(block_ends))
    sizes = np.diff(block_ends, prepend=0)[blocks]
    ends = np.cumsum(sizes)
    # Offset from a block's position here to its position in the table; unsigned wrap-around cancels in the addition.
    rows = np.repeat((block_ends[blocks] - ends).astype(kind), sizes)
    np.add(rows, np.arange(num_rows, dtype=kind), out=rows)

    lanes = num_lanes(batch, shuffle_buffer, num_rows / len(block_ends))
    shares = _shares(num_rows, lanes, batch // lanes, phase)
    cuts = _cuts(ends, np.cumsum(shares), max(1, shuffle_buffer // lanes))
    for start, stop in itertools.pairwise(cuts):
        rng.shuffle(rows[start:stop])
    return _dealt(rows, shares, batch // lanes, phase)


def num_lanes(batch: int, shuffle_buffer: int, rows_per_block: float) -> int:
    """Return the number of lanes of a batch: as many as can each keep two blocks open in the buffer."""
    most = max(1, int(shuffle_buffer // (_BLOCKS_OPEN * rows_per_block)))
    return max(lanes for lanes in range(1, min(batch, most) + 1) if batch % lanes == 0)


def _shares(num_rows: int, lanes: int, width: int, phase: int) -> np.ndarray:
    """Return how many of the positions [phase, phase + num_rows) belong to each lane of `width` rows per batch."""

    def before(position: int) -> np.ndarray:
        batches, rest = divmod(position, lanes * width)
        return batches * width + np.clip(rest - np.arange(lanes) * width, 0, width)

    counts: np.ndarray = before(phase + num_rows) - before(phase)
    return counts


def _cuts(block_ends: np.ndarray, lane_ends: np.ndarray, rows_per_lane: int) -> np.ndarray:
    """Return the boundaries of the pieces that are shuffled: at the ends of lanes, and between blocks."""
    ends = np.union1d(block_ends, lane_ends)
    lane = np.searchsorted(lane_ends, ends)
    lane_starts = np.concatenate([[0], lane_ends[:-1]])
    piece = (ends - 1 - lane_starts[lane]) // rows_per_lane
    is_last = np.append((np.diff(lane) != 0) | (np.diff(piece) != 0), True)
    return np.concatenate([[0], ends[is_last]])


def _dealt(rows: np.ndarray, shares: np.ndarray, width: int, phase: int) -> np.ndarray:
    """Return the rows, given lane after lane, in the order in which batches take them."""
    num_rows, lanes = len(rows), len(shares)
    if lanes == 1:
        return rows
    batches = -(-(phase + num_rows) // (lanes * width))
    grid = np.empty((batches, lanes, width), rows.dtype)
    start = 0
    for lane, share in enumerate(shares):
        skipped = int(np.clip(phase - lane * width, 0, width))
        column = np.zeros(batches * width, rows.dtype)
        column[skipped : skipped + share] = rows[start : start + share]
        grid[:, lane] = column.reshape(batches, width)
        start += share
    return grid.reshape(-1)[phase : phase + num_rows]
