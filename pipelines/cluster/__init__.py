"""The Ray cluster of a job: connection, shares of its resources, progress."""

from pipelines.cluster.connection import (
    Resources,
    connect,
    cpu_environment,
    cpus_for,
    may_grow,
    pool,
    require_lasting,
    require_output,
    require_room,
    say_if_waiting,
    total,
)

__all__ = [
    "Resources",
    "connect",
    "cpu_environment",
    "cpus_for",
    "may_grow",
    "pool",
    "require_lasting",
    "require_output",
    "require_room",
    "say_if_waiting",
    "total",
]
