"""Training of one stage: a Ray Train `TorchTrainer` around the loop of `videogen.training`.

Weights go to OUTPUT/<component>/, measurements to OUTPUT/training/<stage>/, and, last, the record that the stage is
finished to OUTPUT/stages/<stage>.json. A worker that dies is restarted and continues from the latest checkpoint; so
does this function when it is called again after the job itself was killed.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines import cluster
from pipelines.runner import step_records
from pipelines.train.dag import cause_of
from pipelines.train.identity import identity
from pipelines.train.resources import cpus_for
from pipelines.train.worker import NO_GPU, ProgressActor, TrainJob, run_worker
from videogen import storage
from videogen.config import TrainingConfig
from videogen.errors import UserError
from videogen.stages import CascadeConfig
from videogen.training.loader import BatchPlan

_MAX_FAILURES = 3
_CHECKPOINTS_KEPT = 2
_POLL_S = 0.5


class StageError(RuntimeError):
    """A stage failed; the message is the cause in one line."""


@dataclass(frozen=True)
class TrainProgress:
    """Progress of a running stage."""

    step: int
    total: int
    loss: float
    samples_per_s: float


def batch_plan(config: CascadeConfig, stage: str) -> BatchPlan:
    """Return the division of a stage's global batch over workers and accumulation steps.

    Raises:
        UserError: the sizes do not divide.
    """
    training = config.training_of(stage)
    try:
        return BatchPlan(training.batch_size, training.gradient_accumulation_steps, training.num_workers)
    except UserError as error:
        raise UserError(f"{stage}.training: {error}") from error


def train_stage(
    config: CascadeConfig,
    stage: str,
    data_uris: str | Sequence[str],
    output_uri: str,
    init_from: str | None = None,
    on_progress: Callable[[TrainProgress], None] | None = None,
) -> step_records.Record:
    """Train one stage, continuing an interrupted run of the same configuration and data.

    Args:
        config: the cascade.
        stage: "autoencoder" or a trainable stage.
        data_uris: tables of latents, or, for the autoencoder, corpora of videos.
        output_uri: model folder, which holds the frozen components that the stage needs.
        init_from: Stable-Diffusion-layout folder, URI or hub id to start from.
        on_progress: called about twice a second, in another thread.

    Raises:
        UserError: invalid sizes, or missing resources.
        StageError: the stage failed after all retries.
    """
    uris = [data_uris] if isinstance(data_uris, str) else list(data_uris)
    uris, output = [storage.absolute(uri) for uri in uris], storage.absolute(output_uri)
    batch_plan(config, stage)
    who = identity(config, stage, uris, init_from)
    cluster.connect()
    cpus = cpus_for(config, stage)
    run_name = f"{stage}-{step_records.hash_of([who.config_hash, who.data_fingerprint, init_from])}"
    values = config.model_dump(mode="json")
    job = TrainJob(values, stage, uris, output, init_from, run_name, who.data_fingerprint, cpus, _progress_actor())
    with _followed(job, on_progress):
        details = _fit(config, job)
    return step_records.write(output, stage, who, details)


def _fit(config: CascadeConfig, job: TrainJob) -> dict[str, Any]:
    """Run the trainer and return the result of worker 0."""
    import ray
    import ray.train

    try:
        result = _trainer(config, job).fit()
    except ray.train.TrainingFailedError as error:
        raise StageError(ray.get(job.progress_actor.cause.remote(job.run_name)) or cause_of(error)) from error
    given_up = ray.get(job.progress_actor.cause.remote(job.run_name))
    if given_up:
        raise StageError(given_up)
    returned: dict[str, Any] = result.return_value
    return returned


def _trainer(config: CascadeConfig, job: TrainJob) -> Any:
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    training = config.training_of(job.stage)
    folder = storage.join(job.output_uri, "training", job.stage)
    filesystem, path = storage.arrow_filesystem(folder)
    resources = {"CPU": job.num_cpus, **({"GPU": 1} if training.use_gpu else {})}
    return TorchTrainer(
        run_worker,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if training.use_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=training.num_workers,
            use_gpu=training.use_gpu,
            resources_per_worker=resources,
            # A worker with one GPU would also fit on a spot node, which may be preempted.
            label_selector=(cluster.pool("train") if training.use_gpu else {}) or None,
        ),
        run_config=ray.train.RunConfig(
            name=job.run_name,
            storage_path=path,
            storage_filesystem=filesystem if storage.is_remote(folder) else None,
            failure_config=ray.train.FailureConfig(max_failures=_MAX_FAILURES),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=_CHECKPOINTS_KEPT),
            worker_runtime_env=_worker_environment(training),
        ),
    )


def _worker_environment(training: TrainingConfig) -> dict[str, Any]:
    """Return the runtime environment of workers; it hides GPUs from CPU workers.

    Empty if possible, because Ray starts new processes for each distinct environment.
    """
    if training.use_gpu:
        return {}
    variables = {**cluster.cpu_environment(), **(NO_GPU if cluster.total().gpus else {})}
    return {"env_vars": variables} if variables else {}


def _progress_actor() -> Any:
    """Return the `ProgressActor` of this driver."""
    import ray

    session = ray.get_runtime_context().get_job_id()
    with _progress_actors_lock:
        if session not in _progress_actors:
            _progress_actors.clear()
            _progress_actors[session] = ray.remote(num_cpus=0)(ProgressActor).remote()
        return _progress_actors[session]


_progress_actors: dict[str, Any] = {}
_progress_actors_lock = threading.Lock()


@contextlib.contextmanager
def _followed(job: TrainJob, on_progress: Callable[[TrainProgress], None] | None) -> Iterator[None]:
    """Poll the progress actor while the stage runs."""
    import ray

    ray.get(job.progress_actor.begin.remote(job.run_name))
    stopped = threading.Event()

    def poll() -> None:
        while not stopped.wait(_POLL_S):
            noted = ray.get(job.progress_actor.progress.remote(job.run_name))
            if noted is not None and on_progress is not None:
                on_progress(TrainProgress(*noted))

    reader = threading.Thread(target=poll, name="train-progress", daemon=True)
    reader.start()
    try:
        yield
    finally:
        stopped.set()
        reader.join()
