"""Shard reads: retries of storage failures, detection of damaged shards, and a cache of what was read."""

import logging
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

import pyarrow as pa

from videogen import storage
from videogen.errors import UserError

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

_ATTEMPTS = 4
_FIRST_WAIT_S = 0.5
_NETWORK_LIBRARIES = {"aiobotocore", "aiohttp", "botocore", "urllib3"}
"""Libraries whose exceptions are not converted; some of them are no subclass of `OSError`."""


class ShardReadError(OSError):
    """The storage failed to deliver a shard at every attempt; a later run may succeed."""


def read_shard(
    uri: str, read: Callable[[], Value], attempts: int = _ATTEMPTS, first_wait_s: float = _FIRST_WAIT_S
) -> Value:
    """Return `read()`, which reads from the shard at `uri`; retry storage failures with exponential backoff.

    Raises:
        ShardReadError: the storage failed at every attempt, or denies access.
        UserError: the shard is damaged or missing.
    """
    for attempt in range(1, attempts + 1):
        try:
            return read()
        except Exception as error:
            if not (_is_damage(error) or _is_storage_failure(error)):
                raise
            reason = f"{type(error).__name__}: {' '.join(str(error).split()).rstrip('.')}"
            if isinstance(error, FileNotFoundError):
                raise UserError(
                    f"Shard {uri!r} is missing although its table names it: do not change a table that is in use; "
                    f"restore the shard or make the table again."
                ) from error
            # An interrupted transfer may look like damage, hence a second attempt.
            if _is_damage(error) and attempt > 1:
                raise UserError(f"Shard {uri!r} is damaged ({reason}): remove it and make the table again.") from error
            if attempt == attempts or isinstance(error, PermissionError):
                raise ShardReadError(
                    f"shard {uri!r} cannot be read after {attempt} attempts ({reason}): check "
                    f"{'the network and the credentials' if storage.is_remote(uri) else 'the disk'}, then start again"
                ) from error
            wait_s = first_wait_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
            logger.warning("%s: %s; attempt %d of %d in %.1f s", uri, reason, attempt + 1, attempts, wait_s)
            time.sleep(wait_s)
    raise ValueError(f"attempts must be at least 1, not {attempts}")


def _is_damage(error: Exception) -> bool:
    # Arrow reports invalid bytes as ArrowInvalid, or as a plain OSError without an error number.
    return isinstance(error, pa.ArrowInvalid) or (type(error) is OSError and error.errno is None)


def _is_storage_failure(error: Exception) -> bool:
    # A `StorageError` is both a `UserError` and an `OSError`, and may be temporary.
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in _NETWORK_LIBRARIES


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
