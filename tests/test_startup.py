"""What is loaded for good is kept from the garbage collector, which is then as it was."""

import gc
import subprocess
import sys

import pytest

from videogen.startup import loading_for_good


def test_what_is_loaded_is_never_looked_at_again():
    code = (
        "import gc\n"
        "from videogen.startup import loading_for_good\n"
        "collections = []\n"
        "gc.callbacks.append(lambda phase, info: collections.append(phase))\n"
        "with loading_for_good():\n"
        "    kept = [[number] for number in range(100_000)]\n"
        "assert not collections, collections\n"
        "assert gc.isenabled()\n"
        "assert gc.get_freeze_count() > 100_000, gc.get_freeze_count()\n"
        "assert len(gc.get_objects()) < 10_000\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


@pytest.mark.parametrize("before", [True, False])
def test_the_collector_is_as_it_was_even_after_an_error(before):
    @loading_for_good()
    def fail() -> None:
        assert not gc.isenabled()
        raise ValueError("no such weights")

    (gc.enable if before else gc.disable)()
    try:
        with pytest.raises(ValueError, match="no such weights"):
            fail()
        assert gc.isenabled() == before
    finally:
        gc.enable()
