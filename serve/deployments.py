"""Ray Serve deployments of the stages: one autoscaled deployment per stage of the model.

Stages come from `videogen.stages.load_stage`; this module adds placement, number of replicas and batching.
"""

import asyncio
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ray import serve as ray_serve
from ray.serve import Application

from serve.batcher import Batcher
from serve.config import ServeConfig, StageServeConfig
from videogen import storage
from videogen.stages import CascadeConfig
from videogen.startup import imports_without_gc

if TYPE_CHECKING:
    from videogen.stages import Sample

# Grace period beyond the longest batch; Serve's default of 20 s kills a running batch when replicas are scaled down.
_DRAIN_MARGIN_S = 30
# Interval at which a stopping replica checks whether its last request has ended.
DRAIN_POLL_S = 0.25


@dataclass(frozen=True)
class StageOutput:
    """Output of one stage for one job; passed between replicas by reference."""

    values: "Sample"
    batch_size: int
    seconds: float


@dataclass(frozen=True)
class StageKeys:
    """Sample keys that a stage reads and writes."""

    consumes: tuple[str, ...]
    produces: tuple[str, ...]


class StageReplica:
    """Replica of one stage, on one device."""

    def __init__(self, name: str, model: str, config: StageServeConfig) -> None:
        # Imported in the stage's process only, so that other replicas do not load torch.
        from videogen.stages import NOT_THE_MODEL, load_stage

        with storage.local_copy(model, exclude=NOT_THE_MODEL) as folder, imports_without_gc():
            self._stage = load_stage(name, str(folder), device="cuda" if config.num_gpus else "cpu")
        self._batcher: Batcher[Sample, Sample] = Batcher(
            self._stage, max_batch_size=config.max_batch_size, wait_s=config.batch_wait_s, key=batch_key
        )

    async def keys(self) -> StageKeys:
        """Return the keys that the stage reads and writes."""
        return StageKeys(tuple(self._stage.consumes), tuple(self._stage.produces))

    async def run(self, *parts: "Sample | StageOutput") -> StageOutput:
        """Run the stage on one job, whose values are in the outputs of earlier stages; later parts take precedence."""
        sample = merge(parts, self._stage.consumes)
        batched = await self._batcher.submit(sample)
        return StageOutput(batched.result, batched.batch_size, batched.seconds)

    async def __del__(self) -> None:
        """Close the batcher when Serve stops the replica."""
        batcher = getattr(self, "_batcher", None)
        if batcher is not None:
            await asyncio.shield(batcher.close())


def merge(parts: Sequence["Sample | StageOutput"], keys: Sequence[str]) -> "Sample":
    """Return one sample with the values of `keys` that the parts hold."""
    merged: Sample = {}
    for part in parts:
        merged.update(part.values if isinstance(part, StageOutput) else part)
    return {key: merged[key] for key in keys if key in merged}


def batch_key(sample: Mapping[str, Any]) -> Hashable:
    """Return the properties that samples of a batch share: shapes and dtypes of arrays, and which values are None."""
    return tuple(
        (key, value.shape, value.dtype.str) if isinstance(value, np.ndarray) else (key, value is None)
        for key, value in sorted(sample.items())
    )


def stage_deployment(name: str, model: str, config: StageServeConfig) -> Application:
    """Return the deployment of stage `name` of the model at the URI `model`."""
    deployment = ray_serve.deployment(
        StageReplica,
        name=name,
        ray_actor_options={"num_cpus": config.num_cpus, "num_gpus": config.num_gpus},
        max_ongoing_requests=config.max_ongoing_requests,
        autoscaling_config={
            "min_replicas": config.min_replicas,
            "max_replicas": config.max_replicas,
            # One full batch occupies a replica.
            "target_ongoing_requests": config.max_batch_size,
        },
        graceful_shutdown_wait_loop_s=DRAIN_POLL_S,
        graceful_shutdown_timeout_s=config.max_stage_s + _DRAIN_MARGIN_S,
        # The forward pass has its own thread, but loading and long C++ calls may hold the interpreter for a while.
        health_check_timeout_s=max(60.0, config.max_stage_s),
    )
    return deployment.bind(name, model, config)


def stage_deployments(model: str, cascade: CascadeConfig, config: ServeConfig) -> dict[str, Application]:
    """Return one deployment per stage of the cascade, in its order."""
    config.require_fit(cascade)
    return {name: stage_deployment(name, model, config.stage(name)) for name in cascade.stage_names()}
