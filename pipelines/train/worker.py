"""Training worker: build, resume, train, export. Heavy modules are imported on the worker only."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videogen import storage
from videogen.stages import CascadeConfig, config_from_dict
from videogen.startup import imports_without_gc

if TYPE_CHECKING:
    from videogen.training.engine import Engine
    from videogen.training.metrics import MetricsLog
    from videogen.training.state import TrainState

_NOTE_EVERY_S = 0.3
_REMOTE_READERS = 8
"""Threads that read clips from S3, where reading is waiting."""
NO_GPU = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
"""Environment of a worker without a GPU: Ray lets it see its node's, and DeepSpeed would take one, under gloo."""
_FROZEN = ("autoencoder", "text_encoder", "tokenizer")
"""Components that objectives read; only these are fetched from a remote model folder."""


@dataclass(frozen=True)
class TrainJob:
    """Settings of a training worker."""

    config: dict[str, Any]
    stage: str
    data_uris: list[str]
    output_uri: str
    init_from: str | None
    run_name: str
    data_fingerprint: str
    num_cpus: float
    progress_actor: Any
    """Handle of a `ProgressActor` actor."""


class ProgressActor:
    """Progress and fatal errors of workers, by run. A Ray actor that takes no CPU."""

    def __init__(self) -> None:
        self._progress: dict[str, tuple[int, int, float, float]] = {}
        self._causes: dict[str, str] = {}

    def begin(self, run: str) -> None:
        """Reset the state of a run."""
        self._progress.pop(run, None)
        self._causes.pop(run, None)

    def note(self, run: str, step: int, total: int, loss: float, samples_per_s: float) -> None:
        """Store the latest progress."""
        self._progress[run] = (step, total, loss, samples_per_s)

    def progress(self, run: str) -> tuple[int, int, float, float] | None:
        """Return the latest progress."""
        return self._progress.get(run)

    def give_up(self, run: str, cause: str) -> None:
        """Store the first fatal error."""
        self._causes.setdefault(run, cause)

    def cause(self, run: str) -> str | None:
        """Return the fatal error of the run, or None."""
        return self._causes.get(run)


def run_worker(settings: dict[str, Any]) -> dict[str, Any]:
    """Train function of the `TorchTrainer`; worker 0's result describes the finished stage."""
    job: TrainJob = settings["job"]
    keep_off_gpus(config_from_dict(job.config), job.stage)

    import ray

    with imports_without_gc():
        from videogen.training.loop import TrainingError

    if ray.get(job.progress_actor.cause.remote(job.run_name)):
        return {}  # a retry would fail for the same reason
    try:
        return _train(job)
    except Exception as error:
        # OSError and RuntimeError come from machines and networks and are retried; other errors are not.
        if isinstance(error, TrainingError) or not isinstance(error, OSError | RuntimeError):
            ray.get(job.progress_actor.give_up.remote(job.run_name, f"{type(error).__name__}: {error}"))
        raise


def keep_off_gpus(config: CascadeConfig, stage: str) -> None:
    """Hide GPUs from this process if the stage trains on CPUs; to be called before torch is imported."""
    if not config.training_of(stage).use_gpu:
        os.environ.update(NO_GPU)


def _train(job: TrainJob) -> dict[str, Any]:
    started = time.perf_counter()
    with imports_without_gc():
        import torch
        import torch.distributed as dist

        from videogen.stages import build_objective, dataset_kind, objective_class
        from videogen.training.datasets import open_clips, require_unchanged, where_of
        from videogen.training.engine import import_deepspeed
        from videogen.training.loader import BatchPlan, Loader
        from videogen.training.loop import train
        from videogen.training.metrics import MetricsLog

        import_deepspeed()
        objective_class(job.stage)
    num_threads = max(1, int(job.num_cpus))
    torch.set_num_threads(num_threads)
    config = config_from_dict(job.config)
    training = config.training_of(job.stage)
    plan = BatchPlan(training.batch_size, training.gradient_accumulation_steps, dist.get_world_size(), dist.get_rank())
    with _frozen_components(job.output_uri) as model_folder, _metrics_folder(job) as folder:
        objective = build_objective(job.stage, config, model_folder, job.init_from)
        dataset = open_clips(dataset_kind(job.stage), job.data_uris, config, where_of(job.stage, config))
        require_unchanged(dataset, job.stage, job.data_uris, config, job.data_fingerprint)
        num_readers = _REMOTE_READERS if any(map(storage.is_remote, job.data_uris)) else num_threads
        loader = Loader(
            dataset, objective.fields, objective.collate, plan, config.seed, num_readers, training.shuffle_buffer
        )
        engine, state = _build_or_resume(job, config, objective, plan)
        metrics = MetricsLog(folder.path, state)
        began = time.perf_counter()
        callbacks = _callbacks(job, engine, metrics, folder)
        state = train(engine, loader, state, training, metrics, callbacks)
        trained = time.perf_counter()
        weights = engine.state_dict()
        if dist.get_rank() == 0:
            _export(objective, weights, storage.join(job.output_uri, objective.component))
    return {
        "component": objective.component,
        "steps": state.step,
        "samples": state.samples_seen,
        "clips": len(dataset),
        "world_size": plan.world_size,
        "parameters": sum(tensor.numel() for tensor in weights.values()),
        "seconds": {
            "start": round(began - started, 3),
            "train": round(trained - began - callbacks.checkpoint_s, 3),
            "checkpoints": round(callbacks.checkpoint_s, 3),
            "export": round(time.perf_counter() - trained, 3),
        },
    }


def _build_or_resume(job: TrainJob, config: CascadeConfig, objective: Any, plan: Any) -> "tuple[Engine, TrainState]":
    """Return the engine and the training state: initial, or of the latest checkpoint."""
    import ray.train
    import torch.distributed as dist

    from videogen.training import checkpoint
    from videogen.training.engine import Engine
    from videogen.training.state import TrainState

    training = config.training_of(job.stage)
    fresh = TrainState(config.seed, job.run_name, plan.world_size, job.data_fingerprint)
    saved = ray.train.get_checkpoint()
    if saved is None:
        return Engine(objective, training, plan), fresh
    with saved.as_directory() as folder:
        state = checkpoint.read_state(folder)
        resharded = checkpoint.is_resharded(state, training.zero_stage, plan.world_size)
        engine = Engine(objective, training, plan, load_universal=resharded)
        checkpoint.load(engine, state, folder)
        # Inside: the first worker of a node to leave may remove the folder (ray#57118).
        dist.barrier()
    return engine, fresh.at(state)


def _callbacks(job: TrainJob, engine: "Engine", metrics: "MetricsLog", folder: "_Folder") -> Any:
    import ray.train
    import torch.distributed as dist

    from videogen.training import checkpoint
    from videogen.training.loop import Callbacks

    class Report(Callbacks):
        """Progress to the actor, checkpoints to Ray Train; each report is a barrier, hence only with a checkpoint."""

        noted = 0.0
        checkpoint_s = 0.0

        def on_progress(self, step: int, total: int, loss: float, samples_per_s: float) -> None:
            now = time.monotonic()
            if dist.get_rank() == 0 and (now - self.noted > _NOTE_EVERY_S or step == total):
                self.noted = now
                job.progress_actor.note.remote(job.run_name, step, total, loss, samples_per_s)

        def on_checkpoint(self, state: "TrainState") -> None:
            started = time.perf_counter()
            # Each worker its own folder, which Ray removes after the upload.
            shards = tempfile.mkdtemp(prefix="videogen-checkpoint-")
            checkpoint.save(engine, state, shards)
            ray.train.report(
                {"step": state.step, "samples": state.samples_seen},
                checkpoint=ray.train.Checkpoint.from_directory(shards),
                checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
                delete_local_checkpoint_after_upload=True,
            )
            metrics.flush()
            folder.publish()
            self.checkpoint_s += time.perf_counter() - started

    return Report()


@dataclass(frozen=True)
class _Folder:
    """Local folder that is published to `uri`."""

    path: str
    uri: str

    def publish(self) -> None:
        """Upload the folder, unless it is the final one."""
        if self.path != self.uri and any(Path(self.path).iterdir()):
            # Beside the checkpoints, which Ray Train keeps in the same folder.
            storage.add_files(self.path, self.uri)


@contextlib.contextmanager
def _metrics_folder(job: TrainJob) -> Iterator[_Folder]:
    """Yield the folder for metrics: the final one if it is local, else one that is uploaded periodically."""
    from videogen.training.metrics import METRICS_NAME

    uri = storage.join(job.output_uri, "training", job.stage)
    if not storage.is_remote(uri):
        yield _Folder(uri, uri)
        return
    with tempfile.TemporaryDirectory(prefix="videogen-metrics-") as path:
        earlier = storage.join(uri, METRICS_NAME)
        if storage.exists(earlier):
            (Path(path) / METRICS_NAME).write_bytes(storage.read_bytes(earlier))
        folder = _Folder(path, uri)
        yield folder
        if int(os.environ.get("RANK", "0")) == 0:
            folder.publish()


@contextlib.contextmanager
def _frozen_components(output_uri: str) -> Iterator[str]:
    """Yield a local folder with the frozen components of the model."""
    if not storage.is_remote(output_uri):
        yield output_uri
        return
    with tempfile.TemporaryDirectory(prefix="videogen-model-") as folder:
        for name in _FROZEN:
            uri = storage.join(output_uri, name)
            if storage.exists(uri):
                with storage.local_copy(uri) as path:
                    shutil.copytree(path, Path(folder) / name)
        yield folder


def _export(objective: Any, weights: dict[str, Any], uri: str) -> None:
    """Write the component to a temporary folder and move it into place."""
    with tempfile.TemporaryDirectory(prefix="videogen-export-") as folder:
        objective.save(weights, folder)
        storage.upload(folder, uri)
