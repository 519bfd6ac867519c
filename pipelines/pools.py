"""How the operators of a Ray Data graph share a cluster: CPUs, GPUs, memory, and the sizes of actor pools.

Pools of what is there now start full; where the cluster may grow, they may grow with it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines import cluster

if TYPE_CHECKING:
    import ray.data

_DECODE_CPUS, _ENCODE_CPUS = 0.25, 0.75
"""Without GPUs: one encoder a core, and decoders in the gaps that it leaves."""
_UNITS_WORTH_AN_ACTOR = 4
"""An actor that loads a network takes as long to start as to do a few units."""
_MAX_ACTORS = 256
_MEMORY_SHARE = 0.5
"""Of a machine's memory that all operators together may declare."""


@dataclass(frozen=True)
class Shares:
    """What one worker of each of two operators takes: tasks that decode, and actors with a network."""

    task: dict[str, Any]
    actor: dict[str, Any]
    pool: "ray.data.ActorPoolStrategy"


def shares(num_units: int, memory_bytes: int, actors: int | None = None, on_gpus: bool | None = None) -> Shares:
    """Return how decoding tasks and network actors share the connected cluster.

    Args:
        num_units: units to come.
        memory_bytes: what a worker of either kind needs.
        actors: size of the pool; None fits it to the cluster and to the units.
        on_gpus: whether actors take a GPU each; None: where there are some.
    """
    import ray
    import ray.data

    num_gpus = int(cluster.total().gpus)
    on_gpus = num_gpus > 0 if on_gpus is None else on_gpus
    num_free = num_gpus or max(1, int(ray.available_resources().get("CPU", 1)))
    most_useful = max(1, num_units // _UNITS_WORTH_AN_ACTOR)
    size = actors or min(num_free, most_useful)
    # An autoscaler starts with nothing: what is there now is the least, not the most.
    grows = cluster.may_grow() and actors is None
    memory = affordable(memory_bytes)
    actor: dict[str, Any] = {
        "num_cpus": 1 if on_gpus else _ENCODE_CPUS,
        "num_gpus": 1 if on_gpus else None,
        "memory": memory,
    }
    if on_gpus and (where := cluster.pool("encode")):
        actor["label_selector"] = where
    if not on_gpus and (variables := cluster.cpu_environment()):
        actor["runtime_env"] = {"env_vars": variables}
    return Shares(
        task={"num_cpus": 1 if on_gpus else _DECODE_CPUS, "memory": memory},
        actor=actor,
        pool=ray.data.ActorPoolStrategy(
            min_size=size, max_size=max(size, min(most_useful, _MAX_ACTORS)) if grows else size
        ),
    )


def affordable(memory_bytes: int) -> int:
    """Return the memory that a worker declares: what it needs, but never so much that a small machine runs none.

    Ray admits workers by what they declare, and kills whoever happens to be largest when a node runs out.
    """
    import ray

    found = ray.cluster_resources()
    a_core = found.get("memory", 0) * _MEMORY_SHARE / max(1, found.get("CPU", 1))
    return int(min(memory_bytes, a_core)) if a_core else memory_bytes
