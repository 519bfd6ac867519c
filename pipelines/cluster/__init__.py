"""The Ray cluster of a job: connection, shares of its resources, progress."""

from pipelines.cluster.connection import (
    Resources,
    connect,
    cpu_environment,
    may_grow,
    pool,
    say_if_waiting,
    total,
)

__all__ = [
    "Resources",
    "connect",
    "cpu_environment",
    "may_grow",
    "pool",
    "say_if_waiting",
    "total",
]
