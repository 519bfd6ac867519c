"""How glibc is told, by a process's environment, to keep the memory that a process has freed."""

from collections.abc import Mapping
from types import MappingProxyType

KEEP_FREED_MEMORY: Mapping[str, str] = MappingProxyType(
    {
        # The arenas of further threads cannot hold a block of more than 64 MB, and give all back when they are empty.
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
        "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    }
)
"""Environment variables for processes that run networks on CPUs.

By default glibc maps a large block afresh each time and unmaps it when it is freed. Networks allocate the same blocks
again in every step, and pay for clean pages each time: a tenth of a training step, see docs/decisions.md. The price is
that a process keeps what it had at its peak. Other C libraries ignore them. Read when a process starts.
"""
