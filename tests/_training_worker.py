"""A process of a distributed run for the tests of training: a small objective, and scenarios by name."""

import datetime as dt
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from videogen.config import TrainingConfig
from videogen.stages.objective import Objective
from videogen.training import checkpoint
from videogen.training.engine import Engine
from videogen.training.loader import BatchPlan, Loader
from videogen.training.loop import Callbacks, TrainingError, train
from videogen.training.metrics import MetricsLog
from videogen.training.state import TrainState

NUM_CLIPS, WIDTH = 20, 6


class Numbers:
    """Clips of random numbers."""

    fingerprint = "numbers"

    def __init__(self) -> None:
        self._values = np.random.default_rng(0).standard_normal((NUM_CLIPS, WIDTH), dtype=np.float32)

    def __len__(self) -> int:
        return NUM_CLIPS

    def row(self, index: int, fields: Any) -> dict[str, Any]:
        return dict.fromkeys(fields, self._values[index])


class Denoise(Objective):
    """Remove noise from numbers with a small network."""

    stage, component, fields = "base", "base", ("values",)

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Sequential(nn.Linear(WIDTH, 16), nn.Tanh(), nn.Linear(16, WIDTH)))
        self.add_frozen("target", nn.Linear(WIDTH, WIDTH))

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        return {"values": torch.from_numpy(np.stack([row["values"] for row in rows]))}

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        values = batch["values"]
        times = torch.rand(len(values), generator=generator)
        noisy = values + times[:, None] * torch.randn(values.shape, generator=generator)
        losses = (self.model(noisy) - self.target(values)).square().mean(1)
        return losses.mean(), {"timestep_loss": (times, losses)}


def training_config(**changes: Any) -> TrainingConfig:
    values = {"steps": 6, "batch_size": 4, "learning_rate": 1e-2, "log_every": 2, "warmup_steps": 2, **changes}
    return TrainingConfig.model_validate(values)


class Run:
    """State of one worker in a run."""

    def __init__(self, training: TrainingConfig, resume_from: str | None = None) -> None:
        rank, world_size = dist.get_rank(), dist.get_world_size()
        self.training = training
        self.plan = BatchPlan(training.batch_size, training.gradient_accumulation_steps, world_size, rank)
        self.objective = Denoise()
        self.state = TrainState(seed=3, run="x", world_size=world_size)
        saved = checkpoint.read_state(resume_from) if resume_from else None
        resharded = saved is not None and checkpoint.is_resharded(saved, training.zero_stage, world_size)
        self.engine = Engine(self.objective, training, self.plan, load_universal=resharded)
        if saved is not None:
            checkpoint.load(self.engine, saved, resume_from)
            self.state = self.state.at(saved)

    def train(self, metrics_folder: str | None = None, callbacks: Callbacks | None = None) -> dict[str, Tensor]:
        loader = Loader(Numbers(), self.objective.fields, self.objective.collate, self.plan, seed=3)
        metrics = MetricsLog(metrics_folder, self.state)
        self.state = train(self.engine, loader, self.state, self.training, metrics, callbacks)
        return self.engine.state_dict()


class SaveShards(Callbacks):
    """Save a checkpoint when one is due."""

    def __init__(self, run: Run, folder: str) -> None:
        self.run, self.folder = run, folder

    def on_checkpoint(self, state: TrainState) -> None:
        if state.step < self.run.training.steps:
            checkpoint.save(self.run.engine, state, self.folder)


def plain(out: Path, options: dict[str, Any]) -> None:
    """Train to the end."""
    weights = Run(training_config(**options)).train(str(out))
    _keep(out / "weights.pt", weights)


def resume(out: Path, options: dict[str, Any]) -> None:
    """Train to the end from a checkpoint."""
    weights = Run(training_config(**options), resume_from=str(out / "checkpoint")).train(str(out))
    _keep(out / "weights.pt", weights)


def save(out: Path, options: dict[str, Any]) -> None:
    """Train to the end, with a checkpoint in the middle."""
    run = Run(training_config(**options, checkpoint_every=3))
    weights = run.train(None, SaveShards(run, str(out / "checkpoint")))
    _keep(out / "weights.pt", weights)


def average(out: Path, options: dict[str, Any]) -> None:
    """Average the gathered weights step by step, beside the engine's own average."""
    from videogen.training.ema import decay_at

    run = Run(training_config(**options))
    reference: dict[str, Tensor] = {}

    class Follow(Callbacks):
        def on_progress(self, step: int, total: int, loss: float, samples_per_s: float) -> None:
            run.engine.uses_ema = False
            now = run.engine.state_dict()
            run.engine.uses_ema = True
            for name, value in now.items():
                old = reference.get(name)
                reference[name] = (
                    value if old is None else torch.lerp(old, value, 1 - decay_at(step, options["ema_decay"]))
                )

    weights = run.train(None, Follow())
    _keep(out / "weights.pt", weights)
    _keep(out / "reference.pt", reference)


def diverge(out: Path, options: dict[str, Any]) -> None:
    """Return NaN as the loss of the third step, and record the loop's error."""
    run = Run(training_config(**options))
    healthy, steps = run.objective.forward, iter(range(100))

    def forward(batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        loss, logs = healthy(batch, generator)
        return (loss * float("nan") if next(steps) == 2 else loss), logs

    setattr(run.objective, "forward", forward)  # noqa: B010 - a method cannot be assigned to
    try:
        run.train()
    except TrainingError as error:
        (out / "error.txt").write_text(str(error))


SCENARIOS = {"plain": plain, "resume": resume, "save": save, "average": average, "diverge": diverge}


def _keep(path: Path, weights: dict[str, Tensor]) -> None:
    if dist.get_rank() == 0:
        torch.save(weights, path)


def main() -> None:
    rank, world_size, store, scenarios = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK=str(rank))
    torch.set_num_threads(1)
    timeout = dt.timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size, timeout=timeout)
    for name, out, options in scenarios:
        Path(out).mkdir(parents=True, exist_ok=True)
        SCENARIOS[name](Path(out), options)
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
