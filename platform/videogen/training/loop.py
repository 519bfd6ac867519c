"""Training loop of every stage, independent of diffusion and of Ray."""

import math
import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from videogen.training.loader import Loader, MicroBatch
from videogen.training.schedule import learning_rate
from videogen.training.state import TrainState

if TYPE_CHECKING:
    from videogen.config import TrainingConfig
    from videogen.training.engine import Engine
    from videogen.training.metrics import MetricsLog


class TrainingError(RuntimeError):
    """Training cannot continue; the message names the stage, the step and the remedy."""


class Callbacks:
    """Callbacks of the loop; override those that are needed."""

    def on_progress(self, step: int, total: int, loss: float, samples_per_s: float) -> None:
        """Called after every step, with this worker's loss and the samples a second of all workers."""

    def on_checkpoint(self, state: TrainState) -> None:
        """Called on every worker when a checkpoint is due."""


def train(
    engine: "Engine",
    loader: Loader,
    state: TrainState,
    training: "TrainingConfig",
    metrics: "MetricsLog",
    callbacks: Callbacks | None = None,
) -> TrainState:
    """Train from `state` to `training.steps`, and return the state then."""
    callbacks = callbacks or Callbacks()
    engine.objective.train()
    for micro_batches in loader.steps(state.samples_seen, training.steps - state.step):
        started = time.perf_counter()
        rate = learning_rate(state.samples_seen, training)

        loss = _forward_backward(engine, micro_batches, state, metrics)
        norm = engine.step(rate)
        # Gradients are averaged over workers: if one is not finite, all stop here, before it reaches a checkpoint.
        _require_finite("gradient norm", norm, engine, state, micro_batches)
        if engine.objective.adversary is not None:
            metrics.add(engine.objective.adversary.step())
        state = state.advanced(loader.plan.global_batch)

        metrics.add({"grad_norm": norm})
        if state.step % training.log_every == 0 or state.step in (1, training.steps):
            metrics.write(state, rate, loader.wait_s)
        samples_per_s = loader.plan.global_batch / (time.perf_counter() - started)
        callbacks.on_progress(state.step, training.steps, loss, samples_per_s)
        if _checkpoint_is_due(state, training):
            callbacks.on_checkpoint(state)
    metrics.close()
    return state


def _forward_backward(
    engine: "Engine", micro_batches: list[MicroBatch], state: TrainState, metrics: "MetricsLog"
) -> float:
    """Add up the gradients of one step's micro-batches; return the mean loss."""
    total = 0.0
    for micro in micro_batches:
        loss, logs = engine.forward(micro.batch, noise_generator(state.seed, micro.first_counter))
        # One synchronization with the device per step, to detect values that are not finite before they are trained on.
        value = float(loss.detach())
        _require_finite("loss", value, engine, state, [micro])
        engine.backward(loss, is_last=micro is micro_batches[-1])
        metrics.add({"loss": value, **logs})
        total += value / len(micro_batches)
    return total


def noise_generator(seed: int, counter: int) -> torch.Generator:
    """Return the CPU generator of the micro-batch that begins at sample `counter`, and reseed dropout likewise."""
    mixed = int(np.random.SeedSequence((seed, counter)).generate_state(1, np.uint64)[0] >> np.uint64(1))
    torch.manual_seed(mixed)
    return torch.Generator().manual_seed(mixed)


def _checkpoint_is_due(state: TrainState, training: "TrainingConfig") -> bool:
    if state.step == training.steps:
        return True
    return training.checkpoint_every > 0 and state.step % training.checkpoint_every == 0


def _require_finite(
    what: str, value: float, engine: "Engine", state: TrainState, micro_batches: list[MicroBatch]
) -> None:
    if math.isfinite(value):
        return
    stage, counters = engine.objective.stage, [micro.first_counter for micro in micro_batches]
    raise TrainingError(
        f"the {what} of stage {stage!r} is {value} at step {state.step + 1} (samples from {counters}): "
        f"lower {stage}.training.learning_rate, or look for broken clips in the data"
    )
