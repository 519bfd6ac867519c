"""Process settings at start-up: no garbage collection during imports, and malloc variables that keep freed memory."""

import gc
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

KEEP_FREED_MEMORY: Mapping[str, str] = MappingProxyType(
    {
        # Arenas of further threads are limited to blocks of 64 MB, and return all memory when they are empty.
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
        "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    }
)
"""Environment variables that make glibc's malloc reuse freed memory, for processes that run networks on CPUs.

They must be set before a process starts; other C libraries ignore them.

By default glibc maps each large block anew and unmaps it when it is freed. Networks allocate the same blocks in every
step, so page faults on fresh pages cost about a tenth of a training step. With these variables a process keeps its peak
memory.
"""


@contextmanager
def imports_without_gc() -> Iterator[None]:
    """Pause Python's garbage collector while libraries are imported, then exclude all live objects from collection.

    torch, diffusers and transformers create more than half a million objects. By default the collector traverses them
    repeatedly during the imports, from time to time later, and once more at exit: a third of the CPU time of a process
    that does nothing else. Calls may be nested and come from several threads; the collector resumes when the last one
    ends. Use it only in processes of the platform's own, because garbage that exists at that moment is never freed.
    """
    _pause.enter()
    try:
        yield
    finally:
        _pause.leave()


class _Pause:
    """Counter of nested and concurrent pauses of the collector."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._was_enabled = False

    def enter(self) -> None:
        with self._lock:
            if not self._depth:
                self._was_enabled = gc.isenabled()
                gc.disable()
            self._depth += 1

    def leave(self) -> None:
        with self._lock:
            self._depth -= 1
            if not self._depth:
                gc.freeze()
                if self._was_enabled:
                    gc.enable()


_pause = _Pause()
