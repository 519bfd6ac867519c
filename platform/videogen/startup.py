"""What a process imports when it starts, and holds until it ends, is none of the garbage collector's business."""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading_for_good() -> Iterator[None]:
    """Keep Python's garbage collector off while libraries are imported, and off them ever after.

    torch, diffusers and transformers are more than half a million objects. By default the collector looks through all
    of them again and again while they are imported, now and then later, and once more when the process ends: a third of
    the CPU seconds of a process that does nothing else, see docs/decisions.md. May be nested, and entered from several
    threads: the last one to leave sets the collector going again. For processes of our own, because what is garbage by
    then is kept as well.
    """
    _pause.enter()
    try:
        yield
    finally:
        _pause.leave()


class _Pause:
    """Counts who wants the collector off."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._was_on = False

    def enter(self) -> None:
        with self._lock:
            if not self._depth:
                self._was_on = gc.isenabled()
                gc.disable()
            self._depth += 1

    def leave(self) -> None:
        with self._lock:
            self._depth -= 1
            if not self._depth:
                gc.freeze()
                if self._was_on:
                    gc.enable()


_pause = _Pause()
