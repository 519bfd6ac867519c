"""What training needs of any set of clips: its length, its rows by number, and a name for its content."""

import bisect
import hashlib
import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, Protocol, TypeVar

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
        """Return the named fields of one clip."""
        ...


class JoinedClips:
    """Several datasets, one after the other, as one."""

    def __init__(self, datasets: Sequence[ClipDataset]) -> None:
        self._datasets = list(datasets)
        self._ends = list(itertools.accumulate(len(dataset) for dataset in self._datasets))

    @property
    def fingerprint(self) -> str:
        """Hash over the parts' fingerprints in order."""
        return hashlib.sha256(" ".join(dataset.fingerprint for dataset in self._datasets).encode()).hexdigest()[:20]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def row(self, index: int, fields: Sequence[str]) -> Row:
        """Return the named fields of one clip."""
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        part = bisect.bisect_right(self._ends, index)
        start = self._ends[part - 1] if part else 0
        return self._datasets[part].row(index - start, fields)


class ByteCache(Generic[Value]):
    """The most recently used values, up to a number of bytes. Safe to share between threads."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._held_bytes = 0
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value of `key`, made now if it is not held; values have `nbytes`."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            if key not in self._values:
                self._values[key] = value
                self._held_bytes += _nbytes(value)
            while self._held_bytes > self._capacity_bytes and len(self._values) > 1:
                _, dropped = self._values.popitem(last=False)
                self._held_bytes -= _nbytes(dropped)
        return value

    def __reduce__(self) -> tuple[type, tuple[int]]:
        # A copy in another process starts empty: what is cached is not state.
        return (ByteCache, (self._capacity_bytes,))


def _nbytes(value: Any) -> int:
    return int(value.nbytes)
