"""Stage graph: a `Runner` deployment that sends each job through the stages.

The runner awaits each stage, so it can report progress and stop between stages. Values are passed by reference: each
stage fetches only what it consumes from the object store.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeAlias

import numpy as np
from ray import serve as ray_serve
from ray.exceptions import RayActorError, RayTaskError
from ray.serve import Application
from ray.serve.handle import DeploymentHandle, DeploymentResponse

from serve.config import ServeConfig
from serve.deployments import DRAIN_POLL_S, StageKeys, StageOutput, stage_deployments
from serve.engine import (
    Event,
    Generation,
    GenerationFailed,
    ReferenceReady,
    StageFinished,
    StageStarted,
    VideoReady,
    WorkerLostError,
)
from serve.images import encode_png
from videogen.data.video import write_mp4
from videogen.stages import CascadeConfig
from videogen.stages.sample import Sample, new_sample

# Serve replaces a replica that dies; its stage then runs once more, from the outputs of the earlier stages.
_TRIES_PER_STAGE = 2
RUNNER_CPUS = 0.1

Part: TypeAlias = Sample | DeploymentResponse


class Runner:
    """Sends jobs through the stages, and encodes the finished mp4."""

    def __init__(self, stages: dict[str, DeploymentHandle], fps: float) -> None:
        # Always by reference: Serve's throughput mode would send tensors through gRPC, with a limit of 4 MiB.
        self._stages = {name: handle.options(_by_reference=True) for name, handle in stages.items()}
        self._fps = fps
        self._keys: dict[str, StageKeys] = {}

    async def run(self, generation: Generation) -> AsyncGenerator[Event, None]:
        """Yield the events of a job, ending with the mp4 or with the failure."""
        async with aclosing(self._run_stages(_sample(generation))) as events:
            async for event in events:
                if isinstance(event, np.ndarray):
                    yield VideoReady(await asyncio.to_thread(write_mp4, event, self._fps))
                else:
                    yield event

    async def frames(self, generation: Generation) -> np.ndarray:
        """Return a job's frames from the last stage, before video encoding: uint8 (F, H, W, 3)."""
        async with aclosing(self._run_stages(_sample(generation))) as events:
            async for event in events:
                if isinstance(event, np.ndarray):
                    return event
        # The last event is the failure.
        raise RuntimeError(f"job {generation.job_id} gave no frames: {event}")

    async def _run_stages(self, sample: Sample) -> AsyncGenerator[Event | np.ndarray, None]:
        """Yield the events of every stage, then the frames."""
        # `holder` maps each key to the part with its latest value; parts are the request and the stages' responses.
        parts: list[Part] = [sample]
        holder = dict.fromkeys(sample, 0)
        output: StageOutput | None = None
        for name, handle in self._stages.items():
            yield StageStarted(name)
            keys = await self._keys_of(name)
            needed = sorted({holder[key] for key in keys.consumes if key in holder})
            try:
                response, output = await _call(handle, [parts[index] for index in needed])
            except RayTaskError as error:
                cause = error.cause
                yield GenerationFailed("stage_failed", f"Stage {name} failed: {type(cause).__name__}: {cause}")
                return
            holder |= dict.fromkeys(keys.produces, len(parts))
            parts.append(response)
            yield StageFinished(name, output.seconds, output.batch_size)
            if "reference_image" in keys.produces:
                yield ReferenceReady(encode_png(output.values["reference_image"]))
        assert output is not None
        yield output.values["frames"]

    async def _keys_of(self, name: str) -> StageKeys:
        if name not in self._keys:
            self._keys[name] = await self._stages[name].keys.remote()
        return self._keys[name]


async def _call(handle: DeploymentHandle, parts: list[Part]) -> tuple[DeploymentResponse, StageOutput]:
    """Run one stage; return its response, for passing by reference, and its output. Cancelling cancels the stage."""
    for tries_left in reversed(range(_TRIES_PER_STAGE)):
        response = handle.run.remote(*parts)
        try:
            return response, await response
        except RayActorError:
            if not tries_left:
                raise
        finally:
            response.cancel()  # no effect on one that is done
    raise AssertionError("unreachable")


def _sample(generation: Generation) -> Sample:
    """Return the input sample of a job."""
    return new_sample(generation.prompt, generation.seed, generation.negative_prompt, generation.reference_image)


class GraphEngine:
    """Engine of the API: each job is one streaming request to the runner."""

    def __init__(self, runner: DeploymentHandle) -> None:
        self._runner = runner.options(stream=True)

    async def run(self, generation: Generation) -> AsyncGenerator[Event, None]:
        """Yield the job's events; closing early cancels it at the runner and at its stage."""
        events = self._runner.run.remote(generation)
        try:
            async for event in events:
                yield event
        except RayActorError as error:
            raise WorkerLostError(str(error)) from error
        finally:
            events.cancel()


def runner_deployment(model: str, cascade: CascadeConfig, config: ServeConfig) -> Application:
    """Return the runner, bound to every stage."""
    stages = stage_deployments(model, cascade, config)
    deployment = ray_serve.deployment(
        Runner,
        name="runner",
        ray_actor_options={"num_cpus": RUNNER_CPUS},
        max_ongoing_requests=max(config.max_running_jobs, 1),
        graceful_shutdown_wait_loop_s=DRAIN_POLL_S,
        graceful_shutdown_timeout_s=sum(config.stage(name).max_stage_s for name in stages),
    )
    return deployment.bind(stages, cascade.output_fps)
