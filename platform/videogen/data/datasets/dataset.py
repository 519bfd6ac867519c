"""What training needs of any set of clips: its length, its rows by number, and a name for its content.

A dataset may also tell how its rows lie (`BlockedClips`), of what shape they are (`ShapedClips`), and give a part of
itself (`SelectableClips`); the loader makes use of what there is.
"""

import bisect
import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

import numpy as np

from videogen.errors import UserError
from videogen.hashing import short_hash

Row = dict[str, Any]
"""numpy arrays, strings and numbers by field name."""

Value = TypeVar("Value")


class ClipDataset(Protocol):
    """Clips by number. Reading is random access, so that the loader alone decides the order."""

    @property
    def fingerprint(self) -> str:
        """Hash of everything that rows depend on: equal fingerprints, equal rows."""
        ...

    def __len__(self) -> int: ...

    def row(self, index: int, fields: Sequence[str]) -> Row:
        """Return the named fields of one clip. Called by several threads at once."""
        ...


class Shapes(NamedTuple):
    """Height and width in pixels, frames and frames a second of every row: four arrays (rows,)."""

    height: np.ndarray
    width: np.ndarray
    frames: np.ndarray
    fps: np.ndarray


@runtime_checkable
class BlockedClips(Protocol):
    """Clips that are read in blocks of neighbouring rows, such as the row groups of shards."""

    def block_ends(self) -> np.ndarray:
        """Return int64 (blocks,): for each block the row after its last one, up to the number of rows."""
        ...


@runtime_checkable
class ShapedClips(Protocol):
    """Clips that may differ in shape; each shape gets batches of its own."""

    def shapes(self) -> Shapes | None:
        """Return the shape of every row, or None if it is not known and all are alike."""
        ...


@runtime_checkable
class SelectableClips(Protocol):
    """Clips that an SQL expression can choose from."""

    def select(self, where: str) -> "ClipDataset":
        """Return the rows for which `where` holds, in the same order, under a fingerprint that covers the choice.

        It may hold no row at all.

        Raises:
            UserError: `where` is no expression over the columns of this table.
        """
        ...


def block_ends_of(dataset: ClipDataset) -> np.ndarray | None:
    """Return the ends of the dataset's blocks; None if each row is a read of its own."""
    return np.asarray(dataset.block_ends(), np.int64) if isinstance(dataset, BlockedClips) else None


def shapes_of(dataset: ClipDataset) -> Shapes | None:
    """Return the shape of every row; None if the dataset does not tell."""
    return dataset.shapes() if isinstance(dataset, ShapedClips) else None


def _unknown_shapes(length: int) -> Shapes:
    nothing = np.zeros(length, np.int32)
    return Shapes(nothing, nothing, nothing, np.ones(length, np.float32))


class JoinedClips:
    """Several datasets, one after the other, as one."""

    def __init__(self, datasets: Sequence[ClipDataset]) -> None:
        self._datasets = list(datasets)
        self._ends = list(itertools.accumulate(len(dataset) for dataset in self._datasets))

    @property
    def fingerprint(self) -> str:
        """Hash over the parts' fingerprints in order."""
        return short_hash(" ".join(dataset.fingerprint for dataset in self._datasets))

    def block_ends(self) -> np.ndarray:
        """Return the parts' blocks; a part that tells none has one a row."""
        parts, start = [np.zeros(0, np.int64)], 0
        for dataset, end in zip(self._datasets, self._ends, strict=True):
            ends = block_ends_of(dataset)
            parts.append(start + (np.arange(1, len(dataset) + 1) if ends is None else ends))
            start = end
        return np.concatenate(parts)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def row(self, index: int, fields: Sequence[str]) -> Row:
        """Return the named fields of one clip."""
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        part = bisect.bisect_right(self._ends, index)
        start = self._ends[part - 1] if part else 0
        return self._datasets[part].row(index - start, fields)

    def shapes(self) -> Shapes | None:
        """Return the shape of every row, or None if no part tells; rows of a part that does not are 0 x 0."""
        parts = [shapes_of(dataset) for dataset in self._datasets]
        if all(part is None for part in parts):
            return None
        told = [
            _unknown_shapes(len(dataset)) if part is None else part
            for part, dataset in zip(parts, self._datasets, strict=True)
        ]
        return Shapes(*(np.concatenate(columns) for columns in zip(*told, strict=True)))

    def select(self, where: str) -> Self:
        """Return the rows of all parts for which `where` holds.

        Raises:
            UserError: `where` is no expression over the columns, or a part has no columns.
        """
        chosen = []
        for dataset in self._datasets:
            if not isinstance(dataset, SelectableClips):
                raise UserError(
                    f"`where` {where!r} chooses by the columns of a table, which raw videos do not have: encode them "
                    f"first, or leave `where` empty."
                )
            chosen.append(dataset.select(where))
        return type(self)(chosen)


class ByteCache(Generic[Value]):
    """The most recently used values, up to a number of bytes. Safe to share between threads.

    A value that several threads want at once is made by the first of them, and the others wait.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._held_bytes = 0
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._making: dict[Hashable, Future[Value]] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value of `key`, made now if it is not held; values have `nbytes`."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
            theirs = self._making.get(key)
            if theirs is None:
                ours = self._making[key] = Future()
        if theirs is not None:
            return theirs.result()
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                del self._making[key]
            ours.set_exception(error)
            raise
        self._keep(key, value)
        ours.set_result(value)
        return value

    def _keep(self, key: Hashable, value: Value) -> None:
        with self._lock:
            del self._making[key]
            self._values[key] = value
            self._held_bytes += _nbytes(value)
            while self._held_bytes > self._capacity_bytes and len(self._values) > 1:
                _, dropped = self._values.popitem(last=False)
                self._held_bytes -= _nbytes(dropped)

    def __reduce__(self) -> tuple[type, tuple[int]]:
        # A copy in another process starts empty: what is cached is not state.
        return (ByteCache, (self._capacity_bytes,))


def _nbytes(value: Any) -> int:
    return int(value.nbytes)
