"""Batches by bucket: whole global batches, each with clips of one shape.

A bucket holds the rows of one height, width, number of frames and class of frame rates. Its rows form one endless
stream, epoch after epoch, that is cut into batches; so what is left over at the end of an epoch is carried into the
next one, and no row is ever dropped. A batch belongs to the epoch in which it becomes full, and the batches of an epoch
are drawn from the buckets in shuffled order. A bucket smaller than a batch fills one every few epochs.
"""

import bisect
import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from videogen.data.datasets.dataset import Shapes, block_ends_of, shapes_of
from videogen.errors import UserError
from videogen.training.order import SHUFFLE_BUFFER, epoch_order

if TYPE_CHECKING:
    from videogen.data.datasets.dataset import ClipDataset

_EPOCHS_HELD = 2
"""A batch may begin in one epoch and end in the next."""
_BITS = (20, 20, 16, 7)
"""Bits for height, width, frames and frame rate class in the integer that encodes a shape."""
_OCTAVES = 60
"""Largest frame rate class in half octaves; the smallest is its negative."""


class Bucket(NamedTuple):
    """Shape that the clips of a batch have in common."""

    height: int
    width: int
    frames: int
    fps: float
    """Frames a second to within half an octave: 2 ** (n / 2), e.g. 16.0 stands for rates from 13.5 to 19."""


def sort_into_buckets(shapes: Shapes) -> tuple[list[Bucket], np.ndarray]:
    """Return the buckets, sorted, and for each row the number of its bucket, int32 (rows,)."""
    half_octaves = np.clip(np.round(2 * np.log2(np.asarray(shapes.fps, np.float64))), -_OCTAVES, _OCTAVES)
    # One integer per shape: sorting integers is many times faster than sorting rows of a table.
    packed = np.zeros(len(half_octaves), np.int64)
    for column, bits in zip((*shapes[:3], half_octaves + _OCTAVES), _BITS, strict=True):
        packed = (packed << bits) | np.asarray(column, np.int64)
    distinct, labels = np.unique(packed, return_inverse=True)
    return [_unpacked(int(shape)) for shape in distinct], labels.astype(np.int32)


def _unpacked(packed: int) -> Bucket:
    values = []
    for bits in reversed(_BITS):
        values.append(packed & ((1 << bits) - 1))
        packed >>= bits
    octaves, frames, width, height = values
    return Bucket(height, width, frames, 2.0 ** ((octaves - _OCTAVES) / 2))


class Batches:
    """Rows of each step: a pure function of dataset, seed, global batch and shuffle buffer.

    Args:
        dataset: training data; its `block_ends` and `shapes` are used if it has them.
        global_batch: rows of a step over all workers.
        seed: of the shuffle.
        shuffle_buffer: see `videogen.training.order`.
    """

    def __init__(
        self, dataset: "ClipDataset", global_batch: int, seed: int, shuffle_buffer: int = SHUFFLE_BUFFER
    ) -> None:
        self._batch = global_batch
        self._key = (seed, int(hashlib.sha256(dataset.fingerprint.encode()).hexdigest()[:16], 16))
        length, block_ends, shapes = len(dataset), block_ends_of(dataset), shapes_of(dataset)
        names, labels = ([None], None) if shapes is None else sort_into_buckets(shapes)
        if labels is None or len(names) == 1:
            # Small tables of one shape are shuffled by seed and epoch alone.
            key: tuple[int, ...] = (seed,) if length <= shuffle_buffer else self._key
            self._streams = [_Stream(length, None, block_ends, key, shuffle_buffer, global_batch)]
        else:
            self._streams = []
            for number in range(len(names)):
                rows = np.flatnonzero(labels == number).astype(np.uint32 if length < 2**32 else np.uint64)
                share = max(global_batch, shuffle_buffer * len(rows) // length)
                ends = None if block_ends is None else _ends_within(rows, block_ends)
                key = (*self._key, number)
                self._streams.append(_Stream(len(rows), rows, ends, key, share, global_batch))
        self.buckets: dict[Bucket | None, int] = {
            name: len(stream) for name, stream in zip(names, self._streams, strict=True)
        }
        """Rows by bucket; the key is None if the dataset does not provide shapes."""
        self._turns: tuple[int, np.ndarray, np.ndarray] | None = None

    def rows(self, samples_seen: int) -> np.ndarray:
        """Return the row numbers of the step that begins at the sample counter `samples_seen`, (global_batch,).

        Raises:
            UserError: no step begins there.
        """
        step, rest = divmod(samples_seen, self._batch)
        if rest:
            raise UserError(
                f"{samples_seen} samples are no whole number of batches of {self._batch}: continue with the batch_size "
                f"that the run began with."
            )
        stream, batch = self._place(step)
        return self._streams[stream].take(batch * self._batch, self._batch)

    def bucket(self, samples_seen: int) -> Bucket | None:
        """Return the bucket of the step that begins at `samples_seen`."""
        return list(self.buckets)[self._place(samples_seen // self._batch)[0]]

    def _place(self, step: int) -> tuple[int, int]:
        """Return the stream that a step takes its batch from, and the number of the batch in it."""
        if len(self._streams) == 1:
            return 0, step
        rows = sum(len(stream) for stream in self._streams)
        latest = (step + len(self._streams)) * self._batch // rows + 1
        epoch = bisect.bisect_right(range(latest + 1), step, key=self._steps_before) - 1
        if self._turns is None or self._turns[0] != epoch:
            counts = [stream.batches_before(epoch + 1) - stream.batches_before(epoch) for stream in self._streams]
            turns = np.repeat(np.arange(len(counts)), counts)
            np.random.default_rng((*self._key, epoch)).shuffle(turns)
            within = np.empty_like(turns)
            for number in range(len(counts)):
                within[turns == number] = np.arange(counts[number])
            self._turns = (epoch, turns, within)
        _, turns, within = self._turns
        turn = step - self._steps_before(epoch)
        stream = int(turns[turn])
        return stream, self._streams[stream].batches_before(epoch) + int(within[turn])

    def _steps_before(self, epoch: int) -> int:
        return sum(stream.batches_before(epoch) for stream in self._streams)


class _Stream:
    """Endless stream of the rows of one bucket, epoch after epoch."""

    def __init__(
        self,
        length: int,
        rows: np.ndarray | None,
        block_ends: np.ndarray | None,
        key: tuple[int, ...],
        shuffle_buffer: int,
        batch: int,
    ) -> None:
        self._length, self._rows, self._block_ends = length, rows, block_ends
        self._key, self._shuffle_buffer, self._batch = key, shuffle_buffer, batch
        self._orders: OrderedDict[int, np.ndarray] = OrderedDict()

    def __len__(self) -> int:
        return self._length

    def batches_before(self, epoch: int) -> int:
        """Return how many batches are full when `epoch` begins."""
        return epoch * self._length // self._batch

    def take(self, start: int, count: int) -> np.ndarray:
        """Return the rows [start, start + count) of the stream."""
        parts = []
        while count:
            epoch, position = divmod(start, self._length)
            part = self._order(epoch)[position : position + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        numbers = np.concatenate(parts)
        return numbers if self._rows is None else self._rows[numbers]

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            while len(self._orders) >= _EPOCHS_HELD:
                self._orders.popitem(last=False)
            key, phase = (*self._key, epoch), epoch * self._length % self._batch
            self._orders[epoch] = epoch_order(
                key, self._length, self._block_ends, self._shuffle_buffer, self._batch, phase
            )
        return self._orders[epoch]


def _ends_within(rows: np.ndarray, block_ends: np.ndarray) -> np.ndarray:
    """Return the ends of the blocks in the numbering of a bucket; blocks without rows in it are left out."""
    block = np.searchsorted(block_ends, rows, side="right")
    return np.append(np.flatnonzero(np.diff(block)) + 1, len(rows))
