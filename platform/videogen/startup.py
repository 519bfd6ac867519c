"""Garbage collection during imports: paused while libraries load, and kept off the loaded objects afterwards."""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager


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
