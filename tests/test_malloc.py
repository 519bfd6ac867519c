"""Freed memory is kept by a process that has the environment for it."""

import os
import platform
import subprocess
import sys

import pytest

from pipelines import cluster
from videogen.startup import KEEP_FREED_MEMORY

# In a thread of its own, as Ray Train trains: heaps of further threads are given back most eagerly.
_TOUCH = """
import resource, threading
def touch():
    for _ in range(20):
        bytearray(40 << 20)
def count():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=touch)
    thread.start()
    thread.join()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
count()
"""


@pytest.mark.process
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries ignore the variables")
def test_blocks_that_are_wanted_again_cost_no_new_pages():
    plain = {name: value for name, value in os.environ.items() if name not in KEEP_FREED_MEMORY}
    assert 4 * _page_faults({**plain, **KEEP_FREED_MEMORY}) < _page_faults(plain)


def _page_faults(env: dict[str, str]) -> int:
    return int(subprocess.run([sys.executable, "-c", _TOUCH], env=env, check=True, capture_output=True).stdout)


def test_workers_are_given_what_their_cluster_lacks(monkeypatch):
    for name in KEEP_FREED_MEMORY:
        monkeypatch.delenv(name, raising=False)
    assert cluster.cpu_environment() == KEEP_FREED_MEMORY
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert "MALLOC_ARENA_MAX" not in cluster.cpu_environment()
