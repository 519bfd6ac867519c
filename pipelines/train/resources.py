"""Resources of a training stage: CPUs per worker, and checks against a local cluster."""

from pipelines import cluster
from videogen.errors import UserError
from videogen.stages import CascadeConfig


def cpus_for(config: CascadeConfig, stage: str) -> float:
    """Return the CPUs of one training worker of a stage; on a local cluster at most the machine's.

    On an autoscaling cluster, missing resources are logged instead of refused.

    Raises:
        UserError: a local cluster lacks the resources.
    """
    import ray

    training = config.training_of(stage)
    if cluster.may_grow():
        workers = training.num_workers
        needed = cluster.Resources(workers * training.cpus_per_worker, workers if training.use_gpu else 0)
        instead = f"--set {stage}.training.num_workers=1 {stage}.training.use_gpu=false takes the least"
        cluster.say_if_waiting(f"Stage {stage!r}", needed, instead)
        return training.cpus_per_worker
    require_room(config, stage)
    num_cpus: float = ray.cluster_resources()["CPU"]
    return min(training.cpus_per_worker, num_cpus // training.num_workers)


def require_room(config: CascadeConfig, stage: str) -> None:
    """Refuse a stage for which a local cluster is too small.

    Raises:
        UserError: the machine lacks GPUs or cores.
    """
    import ray

    if cluster.may_grow():
        return
    training = config.training_of(stage)
    total = ray.cluster_resources()
    if training.use_gpu and total.get("GPU", 0) < training.num_workers:
        raise UserError(
            f"Stage {stage!r} wants {training.num_workers} workers with a GPU each, but this machine has "
            f"{total.get('GPU', 0):.0f} GPUs: run on a cluster that has them, or --set {stage}.training.num_workers=1 "
            f"{stage}.training.use_gpu=false."
        )
    if training.num_workers > total["CPU"]:
        raise UserError(
            f"Stage {stage!r} wants {training.num_workers} workers, but this machine has {total['CPU']:.0f} cores: "
            f"--set {stage}.training.num_workers={total['CPU']:.0f}, or run on a larger cluster."
        )
