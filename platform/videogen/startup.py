"""What a process loads when it starts, and holds until it ends, is none of the garbage collector's business."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading_for_good() -> Iterator[None]:
    """Keep Python's garbage collector off while libraries and weights are loaded, and off them ever after.

    torch, diffusers and transformers are a million objects. By default the collector looks through all of them again
    and again while they are imported, now and then later, and once more when the process ends: two of the five
    seconds of such a process that does nothing else, see docs/decisions.md. As a decorator it is for the constructor
    of an actor. Not for a process that is not ours: what is garbage by then is kept as well.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
