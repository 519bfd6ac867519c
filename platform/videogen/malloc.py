"""Environment variables that make glibc's malloc reuse freed memory in processes that run networks on CPUs."""

from collections.abc import Mapping
from types import MappingProxyType

KEEP_FREED_MEMORY: Mapping[str, str] = MappingProxyType(
    {
        # Arenas of further threads are limited to blocks of 64 MB, and return all memory when they are empty.
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
        "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    }
)
"""Variables to set before a process starts; other C libraries ignore them.

By default glibc maps each large block anew and unmaps it when it is freed. Networks allocate the same blocks in every
step, so page faults on fresh pages cost about a tenth of a training step. With these variables a process keeps its peak
memory.
"""
