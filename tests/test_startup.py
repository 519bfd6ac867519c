"""Startup without garbage collection: loaded objects are exempt, and the collector's settings are restored."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.process

LOADED = """
import gc
from videogen.startup import imports_without_gc
collections = []
gc.callbacks.append(lambda phase, info: collections.append(phase))
with imports_without_gc():
    with imports_without_gc():
        kept = [[number] for number in range(100_000)]
    kept += [[number] for number in range(100_000)]
assert not collections, collections
assert gc.isenabled()
assert gc.get_freeze_count() > 200_000, gc.get_freeze_count()
assert len(gc.get_objects()) < 10_000
"""
FAILED = """
import gc
from videogen.startup import imports_without_gc
for before in (True, False):
    (gc.enable if before else gc.disable)()
    try:
        with imports_without_gc():
            assert not gc.isenabled()
            raise ValueError
    except ValueError:
        assert gc.isenabled() == before
"""
TWO_THREADS = """
import gc, threading
from videogen.startup import imports_without_gc
inside, leave, seen = threading.Event(), threading.Event(), []
def first():
    with imports_without_gc():
        inside.set()
        leave.wait()
thread = threading.Thread(target=first)
thread.start()
inside.wait()
with imports_without_gc():
    leave.set()
    thread.join()
    seen.append(gc.isenabled())
assert seen == [False], "the first to leave set it going while the other was loading"
assert gc.isenabled(), "the last to leave left it off"
"""


def _run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_what_is_loaded_is_never_looked_at_again():
    _run(LOADED)


def test_the_collector_is_as_it_was_even_after_an_error():
    _run(FAILED)


def test_the_last_of_several_threads_sets_it_going_again():
    _run(TWO_THREADS)
