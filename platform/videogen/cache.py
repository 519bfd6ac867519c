"""In-memory LRU cache bounded by bytes, shared by threads."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


Cached = TypeVar("Cached", bound=_Sized)


class ByteCache(Generic[Cached]):
    """Thread-safe LRU cache with a capacity in bytes.

    If several threads request a missing value at once, the first of them computes it and the others wait.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._held_bytes = 0
        self._values: OrderedDict[Hashable, Cached] = OrderedDict()
        self._pending: dict[Hashable, Future[Cached]] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, compute: Callable[[], Cached]) -> Cached:
        """Return the value of `key`, computed now if it is not cached."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
            theirs = self._pending.get(key)
            if theirs is None:
                ours = self._pending[key] = Future()
        if theirs is not None:
            return theirs.result()
        try:
            value = compute()
        except BaseException as error:
            with self._lock:
                del self._pending[key]
            ours.set_exception(error)
            raise
        self._keep(key, value)
        ours.set_result(value)
        return value

    def _keep(self, key: Hashable, value: Cached) -> None:
        with self._lock:
            del self._pending[key]
            self._values[key] = value
            self._held_bytes += value.nbytes
            while self._held_bytes > self._capacity_bytes and len(self._values) > 1:
                _, dropped = self._values.popitem(last=False)
                self._held_bytes -= dropped.nbytes

    def __reduce__(self) -> "tuple[type[ByteCache[Cached]], tuple[int]]":
        # A copy in another process starts empty: the cached values are not state.
        return (ByteCache, (self._capacity_bytes,))
