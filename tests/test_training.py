"""Training without Ray: order, engine, average, checkpoints. Anything distributed runs as two gloo processes."""

import contextlib
import dataclasses
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests._training_worker import NUM_CLIPS, Numbers, training_config
from videogen.errors import UserError
from videogen.training.ema import AdamWithEma, decay_at
from videogen.training.loader import BatchPlan, Loader, sample_index
from videogen.training.metrics import MetricsLog
from videogen.training.schedule import learning_rate
from videogen.training.state import TrainState

ROOT = Path(__file__).resolve().parent.parent
EMA = {"ema_decay": 0.9}
RESHARDED = (0, 2, 3)
"""ZeRO stages whose checkpoints are resumed with another number of workers."""


def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"values": [row["values"] for row in rows]}


# --- order -------------------------------------------------------------------------------------------------------


def test_every_clip_comes_once_an_epoch_and_epochs_differ():
    epochs = [[sample_index(epoch * 10 + i, seed=1, length=10) for i in range(10)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != [sample_index(i, seed=2, length=10) for i in range(10)]


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 1), (2, 1), (4, 1), (2, 3), (3, 2)])
def test_a_step_has_the_same_clips_at_any_number_of_workers(world_size, accumulation):
    counters = [
        counter
        for rank in range(world_size)
        for micro in BatchPlan(12, accumulation, world_size, rank).micro_counters(samples_seen=36)
        for counter in micro
    ]
    assert sorted(counters) == list(range(36, 48))


def test_a_run_that_continues_reads_on_where_it_stopped():
    def batches(samples_seen: int, steps: int) -> list[float]:
        loader = Loader(Numbers(), ("values",), collate, BatchPlan(4), seed=5, num_readers=2)
        return [
            float(value[0])
            for step in loader.steps(samples_seen, steps)
            for micro in step
            for value in micro.batch["values"]
        ]

    whole = batches(0, 12)
    assert batches(0, 5) + batches(20, 7) == whole
    assert len(set(whole[:NUM_CLIPS])) == NUM_CLIPS


def test_sizes_that_do_not_divide_are_refused_with_the_cure():
    with pytest.raises(UserError, match=r"batch_size 6 .* num_workers 4 .* multiple of 4"):
        BatchPlan(6, 1, 4)


def test_an_error_in_the_reading_thread_reaches_the_loop():
    def broken(rows: list[dict[str, Any]]) -> dict[str, Any]:
        raise ValueError("unreadable clip")

    loader = Loader(Numbers(), ("values",), broken, BatchPlan(4), seed=0)
    with pytest.raises(ValueError, match="unreadable clip"):
        list(loader.steps(0, 3))


# --- schedule, average, metrics -----------------------------------------------------------------------------------


def test_learning_rate_warms_up_then_falls_to_a_twentieth():
    training = training_config(steps=100, batch_size=4, warmup_steps=10, learning_rate=1.0)
    rates = [learning_rate(step * 4, training) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(rates[9]) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.05)
    assert rates[9:] == sorted(rates[9:], reverse=True)


def test_the_average_follows_its_formula():
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = AdamWithEma([weight], ema_decay=0.9, lr=0.1)
    average = None
    for step in range(1, 30):
        weight.grad = torch.randn(3, generator=torch.Generator().manual_seed(step))
        optimizer.step()
        now = weight.detach()
        average = now.clone() if average is None else torch.lerp(average, now, 1 - decay_at(step, 0.9))
    assert torch.equal(optimizer.state[weight]["ema"], average)


def test_metrics_forget_what_an_interrupted_run_logged_beyond_its_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in (2, 4, 6)) + '{"step": 8, "lo')
    log = MetricsLog(tmp_path, TrainState(seed=0, run="x", world_size=1, samples_seen=16, step=4))
    log.add({"loss": 2.0, "timestep_loss": (torch.tensor([0.05, 0.95, 0.99]), torch.tensor([1.0, 2.0, 4.0]))})
    log.add({"loss": 4.0})
    log.write(TrainState(seed=0, run="x", world_size=1, samples_seen=24, step=6), 1e-3, 0.0)
    log.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert lines[-1]["loss"] == 3.0
    assert lines[-1]["loss_by_timestep"] == [1.0, *[None] * 8, 3.0]


def test_tensorboard_shows_no_step_twice(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def log(begun: int, *steps: int) -> None:
        state = TrainState(seed=0, run="x", world_size=1, samples_seen=4 * begun, step=begun)
        with contextlib.closing(MetricsLog(tmp_path, state)) as metrics:
            for step in steps:
                metrics.add({"loss": float(begun)})
                metrics.write(dataclasses.replace(state, step=step, samples_seen=4 * step), 1e-3, 0.0)

    log(0, 2, 4, 5, 8)
    log(4, 5, 6)  # from the checkpoint of step 4
    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
    assert [(scalar.step, scalar.value) for scalar in shown] == [(2, 0.0), (4, 0.0), (5, 4.0), (6, 4.0)]


# --- the engine, one and two processes ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Run scenarios in a process group, one after the other, and return the folder with what they left."""
    folder = tmp_path_factory.mktemp("training")

    def run(world_size: int, *scenarios: tuple[str, str, dict[str, Any]]) -> Path:
        plan = json.dumps([[name, str(folder / out), options] for name, out, options in scenarios])
        store = tmp_path_factory.mktemp("store") / "store"
        command = [sys.executable, str(ROOT / "tests" / "_training_worker.py")]
        workers = [
            subprocess.Popen(
                [*command, str(rank), str(world_size), str(store), plan],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(world_size)
        ]
        for worker in workers:
            output, _ = worker.communicate(timeout=600)
            assert worker.returncode == 0, output[-3000:]
        return folder

    return run


@pytest.fixture(scope="module")
def two_workers(launch: Callable[..., Path]) -> Path:
    """Return what two workers left: runs with a checkpoint in the middle, and averages beside their formula."""
    saves = [("save", f"save{stage}", {"zero_stage": stage, **EMA}) for stage in range(4)]
    averages = [("average", f"average{stage}", {"zero_stage": stage, **EMA}) for stage in range(4)]
    accumulated = ("plain", "accumulated", {"gradient_accumulation_steps": 2})
    bf16 = [("plain", f"bf16_{stage}", {"zero_stage": stage, "precision": "bf16", **EMA}) for stage in (0, 2, 3)]
    return launch(2, *saves, *averages, accumulated, *bf16)


@pytest.fixture(scope="module")
def one_worker(two_workers: Path, launch: Callable[..., Path]) -> Path:
    """Return what one worker left: runs that continue those of two workers, and a run that diverges."""
    for stage in RESHARDED:
        shutil.copytree(two_workers / f"save{stage}/checkpoint", two_workers / f"reshard{stage}/checkpoint")
    resumed = [("resume", f"reshard{stage}", {"zero_stage": stage, **EMA}) for stage in RESHARDED]
    return launch(1, *resumed, ("diverge", "diverge", {}))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path)


def difference(first: Path, second: Path) -> float:
    one, other = weights(first), weights(second)
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.process
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_stages_train_the_same_weights(two_workers, stage):
    assert difference(two_workers / f"save{stage}/weights.pt", two_workers / "save0/weights.pt") < 1e-6


@pytest.mark.process
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_average_of_partitions_equals_the_average_of_gathered_weights(two_workers, stage):
    folder = two_workers / f"average{stage}"
    assert difference(folder / "weights.pt", folder / "reference.pt") == 0
    assert difference(folder / "weights.pt", two_workers / f"save{stage}/weights.pt") == 0


@pytest.mark.process
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_bf16_trains_close_to_fp32(two_workers, stage):
    assert 0 < difference(two_workers / f"bf16_{stage}/weights.pt", two_workers / "save0/weights.pt") < 0.05


@pytest.mark.process
def test_accumulated_gradients_train(two_workers):
    lines = [json.loads(line) for line in (two_workers / "accumulated/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 4, 6]
    assert lines[-1]["samples"] == 24
    assert all(math.isfinite(line["loss"]) and line["grad_norm"] > 0 for line in lines)


@pytest.mark.process
def test_resuming_is_bit_equal(two_workers, launch):
    for stage in range(4):
        shutil.copytree(two_workers / f"save{stage}/checkpoint", two_workers / f"resume{stage}/checkpoint")
    launch(2, *[("resume", f"resume{stage}", {"zero_stage": stage, **EMA}) for stage in range(4)])
    for stage in range(4):
        assert difference(two_workers / f"resume{stage}/weights.pt", two_workers / f"save{stage}/weights.pt") == 0


@pytest.mark.process
def test_resuming_with_another_number_of_workers(one_worker):
    # ZeRO 0 needs no conversion, so the converted checkpoints must give its weights.
    for stage in RESHARDED[1:]:
        assert difference(one_worker / f"reshard{stage}/weights.pt", one_worker / "reshard0/weights.pt") < 1e-6


@pytest.mark.process
def test_an_unfinished_checkpoint_is_refused(two_workers, tmp_path):
    from videogen.training import checkpoint

    whole = two_workers / "save2/checkpoint"
    assert checkpoint.read_state(whole).step == 3
    shutil.copytree(whole, tmp_path / "cut")
    next((tmp_path / "cut").rglob("*optim_states.pt")).write_bytes(b"cut off")
    with pytest.raises(RuntimeError, match="instead of"):
        checkpoint.read_state(tmp_path / "cut")
    (tmp_path / "cut" / "manifest.json").unlink()
    with pytest.raises(RuntimeError, match="never finished"):
        checkpoint.read_state(tmp_path / "cut")


@pytest.mark.process
def test_a_loss_that_is_no_number_stops_with_stage_step_and_cure(one_worker):
    sentence = (one_worker / "diverge/error.txt").read_text()
    for word in ("loss", "'base'", "nan", "step 3", "learning_rate"):
        assert word in sentence
