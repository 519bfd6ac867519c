"""Dataset protocol of training: random access to rows, and a fingerprint of their content.

A dataset may also describe the blocks that its rows are read in (`BlockedClips`), the shapes of its rows
(`ShapedClips`), and selections of rows (`SelectableClips`); the loader uses these where a dataset has them.
"""

import bisect
import itertools
from collections.abc import Sequence
from typing import NamedTuple, Protocol, Self, runtime_checkable

import numpy as np

from videogen.data.tables import Row
from videogen.errors import UserError
from videogen.hashing import short_hash


class ClipDataset(Protocol):
    """Clips by index. Reading is random access, so the loader alone determines the order."""

    @property
    def fingerprint(self) -> str:
        """Hash of everything that determines the rows: equal fingerprints, equal rows."""
        ...

    def __len__(self) -> int: ...

    def row(self, index: int, fields: Sequence[str]) -> Row:
        """Return fields of one clip; must be thread-safe."""
        ...


class Shapes(NamedTuple):
    """Height and width in pixels, frames and frames a second of every row: four arrays (rows,)."""

    height: np.ndarray
    width: np.ndarray
    frames: np.ndarray
    fps: np.ndarray


@runtime_checkable
class BlockedClips(Protocol):
    """Clips that are read in blocks of adjacent rows, such as the row groups of shards."""

    def block_ends(self) -> np.ndarray:
        """Return int64 (blocks,): the exclusive end of each block; the last is the number of rows."""
        ...


@runtime_checkable
class ShapedClips(Protocol):
    """Clips of several shapes; each batch has clips of one shape."""

    def shapes(self) -> Shapes | None:
        """Return the shape of every row; None if it is unknown and the same for all rows."""
        ...


@runtime_checkable
class SelectableClips(Protocol):
    """Clips that can be selected by an SQL condition."""

    def select(self, where: str) -> "ClipDataset":
        """Return the rows that fulfil `where`, in the same order; their fingerprint covers the selection.

        The result may be empty.

        Raises:
            UserError: `where` is not a condition over the columns of this table.
        """
        ...


def block_ends_of(dataset: ClipDataset) -> np.ndarray | None:
    """Return the ends of the dataset's blocks; None if rows are read one by one."""
    return np.asarray(dataset.block_ends(), np.int64) if isinstance(dataset, BlockedClips) else None


def shapes_of(dataset: ClipDataset) -> Shapes | None:
    """Return the shape of every row; None if the dataset does not know it."""
    return dataset.shapes() if isinstance(dataset, ShapedClips) else None


def _unknown_shapes(length: int) -> Shapes:
    nothing = np.zeros(length, np.int32)
    return Shapes(nothing, nothing, nothing, np.ones(length, np.float32))


class JoinedClips:
    """Concatenation of several datasets."""

    def __init__(self, datasets: Sequence[ClipDataset]) -> None:
        self._datasets = list(datasets)
        self._ends = list(itertools.accumulate(len(dataset) for dataset in self._datasets))

    @property
    def fingerprint(self) -> str:
        """Hash of the parts' fingerprints in order."""
        return short_hash(" ".join(dataset.fingerprint for dataset in self._datasets))

    def block_ends(self) -> np.ndarray:
        """Return the parts' blocks; a part without blocks has one per row."""
        parts, start = [np.zeros(0, np.int64)], 0
        for dataset, end in zip(self._datasets, self._ends, strict=True):
            ends = block_ends_of(dataset)
            parts.append(start + (np.arange(1, len(dataset) + 1) if ends is None else ends))
            start = end
        return np.concatenate(parts)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def row(self, index: int, fields: Sequence[str]) -> Row:
        """Return fields of one clip."""
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        part = bisect.bisect_right(self._ends, index)
        start = self._ends[part - 1] if part else 0
        return self._datasets[part].row(index - start, fields)

    def shapes(self) -> Shapes | None:
        """Return the shape of every row; None if no part knows it, and 0 x 0 in a part that does not."""
        parts = [shapes_of(dataset) for dataset in self._datasets]
        if all(part is None for part in parts):
            return None
        told = [
            _unknown_shapes(len(dataset)) if part is None else part
            for part, dataset in zip(parts, self._datasets, strict=True)
        ]
        return Shapes(*(np.concatenate(columns) for columns in zip(*told, strict=True)))

    def select(self, where: str) -> Self:
        """Return the rows of all parts that fulfil `where`.

        Raises:
            UserError: `where` is not a condition over the columns, or a part has no columns.
        """
        chosen = []
        for dataset in self._datasets:
            if not isinstance(dataset, SelectableClips):
                raise UserError(
                    f"`where` {where!r} needs the columns of a table, which raw videos do not have: encode them first, "
                    f"or leave `where` empty."
                )
            chosen.append(dataset.select(where))
        return type(self)(chosen)
