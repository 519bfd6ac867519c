"""Resource shares of Ray Data operators: CPUs, GPUs, memory, and the sizes of actor pools.

Pools start with the resources of the current cluster and grow with it if it autoscales.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.cluster import connection

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data

_BATCHES_PER_ACTOR, _BATCHES_PER_DECODER = 4, 2
"""Actors that load a network start as slowly as they process a few batches; actors that also decode have more work."""
_MAX_ACTORS = 256
_MEMORY_SHARE = 0.5
"""Fraction of a node's memory that all operators together may declare."""


@dataclass(frozen=True)
class Shares:
    """Resources of one worker of each of two operators: tasks that decode, and actors with a network."""

    task: dict[str, Any] | None
    """None: without GPUs, an actor decodes its batches itself."""
    actor: dict[str, Any]
    pool: "ray.data.ActorPoolStrategy"
    num_workers: tuple[int, int]
    """Of each step, at the start."""


def shares(num_batches: int, memory_bytes: int, actors: int | None = None, on_gpus: bool | None = None) -> Shares:
    """Divide the connected cluster between decoding tasks and network actors.

    Args:
        num_batches: number of batches of work items.
        memory_bytes: memory of one worker of either kind.
        actors: size of the pool; None derives it from the cluster and the number of batches.
        on_gpus: whether each actor takes a GPU; None: if the cluster has GPUs.
    """
    import ray
    import ray.data

    num_gpus = int(connection.total().gpus)
    on_gpus = num_gpus > 0 if on_gpus is None else on_gpus
    num_free = max(1, num_gpus if on_gpus else int(ray.available_resources().get("CPU", 1)))
    most_useful = max(1, num_batches // (_BATCHES_PER_ACTOR if on_gpus else _BATCHES_PER_DECODER))
    size = actors or min(num_free, most_useful)
    # With an autoscaler the current size is a minimum.
    grows = connection.may_grow() and actors is None
    actor: dict[str, Any] = {
        "num_cpus": 1,
        "num_gpus": 1 if on_gpus else None,
        "memory": affordable(memory_bytes if on_gpus else 2 * memory_bytes),
    }
    if on_gpus and (where := connection.pool("encode")):
        actor["label_selector"] = where
    if not on_gpus and (variables := connection.cpu_environment()):
        actor["runtime_env"] = {"env_vars": variables}
    num_tasks = max(1, int(connection.total().cpus) - size)
    return Shares(
        task={"num_cpus": 1, "memory": affordable(memory_bytes)} if on_gpus else None,
        actor=actor,
        pool=ray.data.ActorPoolStrategy(
            min_size=size, max_size=max(size, min(most_useful, _MAX_ACTORS)) if grows else size
        ),
        num_workers=(num_tasks if on_gpus else size, size),
    )


def two_steps(
    batches: "ray.data.Dataset", decode: Callable[..., "pa.Table"], network: type, task: Any, share: Shares
) -> tuple["ray.data.Dataset", tuple[int, int]]:
    """Return the graph of `decode(batch, task)`, then `network(task)(batch)`, and the workers of each operator.

    With GPUs, CPU tasks decode while GPUs encode. On CPUs alone both steps run in one actor per core: more busy
    processes than cores cost about 10 % of the throughput in cache misses.
    """
    one: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": 1}
    if share.task is None:
        arguments = (decode, network, task)
        graph = batches.map_batches(
            _DecodeThenNetwork, fn_constructor_args=arguments, compute=share.pool, **share.actor, **one
        )
    else:
        decoded = batches.map_batches(decode, fn_args=(task,), **share.task, **one)
        graph = decoded.map_batches(network, fn_constructor_args=(task,), compute=share.pool, **share.actor, **one)
    return graph, share.num_workers


class _DecodeThenNetwork:
    """Actor that runs both steps."""

    def __init__(self, decode: Callable[..., "pa.Table"], network: type, task: Any) -> None:
        self._decode, self._network, self._task = decode, network(task), task

    def __call__(self, table: "pa.Table") -> Any:
        """Process one batch of work items."""
        return self._network(self._decode(table, self._task))


def affordable(memory_bytes: int) -> int:
    """Return the memory that a worker declares: its need, capped so that a small machine can run one.

    Ray admits workers by declared memory, and kills the largest process when a node runs out.
    """
    import ray

    found = ray.cluster_resources()
    a_core = found.get("memory", 0) * _MEMORY_SHARE / max(1, found.get("CPU", 1))
    return int(min(memory_bytes, a_core)) if a_core else memory_bytes
