"""Metrics log of training: `metrics.jsonl`, one line every `log_every` steps, and the same in TensorBoard.

Values are means over the steps since the last line and over all workers. The loss by timestep shows which noise
levels still improve when the mean no longer does.
"""

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from videogen.training.state import TrainState

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

METRICS_NAME = "metrics.jsonl"
TIMESTEP_LOSS = "timestep_loss"
NUM_BINS = 10


class MetricsLog:
    """Collects values of every step on every worker; worker 0 writes them into `folder` (None: not written)."""

    def __init__(self, folder: str | Path | None, state: TrainState) -> None:
        self._folder = Path(folder) if folder is not None and _rank() == 0 else None
        self._writer: SummaryWriter | None = None
        self._sums: dict[str, float | torch.Tensor] = {}
        self._counts: dict[str, int] = {}
        self._bins = torch.zeros(2, NUM_BINS, dtype=torch.float64)
        self._has_bins = False
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            _drop_lines_after(self._folder / METRICS_NAME, state.step)
            self._writer = _tensorboard(self._folder, state.step + 1)
        self._since = (time.perf_counter(), state.samples_seen, 0.0)

    def add(self, values: dict[str, Any]) -> None:
        """Count values: numbers or 0-d tensors; `timestep_loss` is (timesteps in 0..1, losses), each (B,)."""
        for name, value in values.items():
            if name == TIMESTEP_LOSS:
                self._add_bins(*value)
            else:
                # Tensors are summed as tensors: reading one here would synchronize with the GPU in every step.
                self._sums[name] = self._sums.get(name, 0.0) + value
                self._counts[name] = self._counts.get(name, 0) + 1

    def write(self, state: TrainState, learning_rate: float, wait_s: float) -> dict[str, float]:
        """Write one line for all steps since the last; returns it. `wait_s`: seconds waited for data so far."""
        then, samples_then, wait_then = self._since
        elapsed = max(time.perf_counter() - then, 1e-9)
        line = {
            "step": state.step,
            "samples": state.samples_seen,
            **self._means(),
            "learning_rate": learning_rate,
            "samples_per_s": (state.samples_seen - samples_then) / elapsed,
            "data_wait_share": (wait_s - wait_then) / elapsed,
        }
        bins = self._bin_means()
        if self._folder is not None:
            with (self._folder / METRICS_NAME).open("a") as file:
                file.write(json.dumps({**line, "loss_by_timestep": bins} if bins else line) + "\n")
            self._write_tensorboard(line, bins)
        self._since = (time.perf_counter(), state.samples_seen, wait_s)
        return line

    def flush(self) -> None:
        """Flush TensorBoard's file."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _means(self) -> dict[str, float]:
        """Return the mean of every value over passes and workers, and reset the sums."""
        names = sorted(self._sums)
        means = torch.tensor([float(self._sums[name]) / self._counts[name] for name in names], dtype=torch.float64)
        self._sums, self._counts = {}, {}
        _average(means)
        return dict(zip(names, means.tolist(), strict=True))

    def _add_bins(self, timesteps: torch.Tensor, losses: torch.Tensor) -> None:
        index = (timesteps.detach().double().cpu() * NUM_BINS).long().clamp(0, NUM_BINS - 1)
        self._bins[0].index_add_(0, index, losses.detach().double().cpu())
        self._bins[1].index_add_(0, index, torch.ones(len(index), dtype=torch.float64))
        self._has_bins = True

    def _bin_means(self) -> list[float | None]:
        """Return the mean loss of each tenth of the timesteps; None for an empty bin."""
        if not self._has_bins:
            return []
        _average(self._bins)
        sums, counts = self._bins.tolist()
        self._bins.zero_()
        return [total / count if count else None for total, count in zip(sums, counts, strict=True)]

    def _write_tensorboard(self, line: dict[str, float], bins: list[float | None]) -> None:
        if self._writer is None:
            raise RuntimeError("the metrics log is closed")
        step = int(line["step"])
        for name, value in line.items():
            if name != "step":
                self._writer.add_scalar(name, value, step)
        for index, mean in enumerate(bins):
            if mean is not None:
                self._writer.add_scalar(f"loss_by_timestep/{index / NUM_BINS:.1f}", mean, step)


def _tensorboard(folder: Path, first_step: int) -> "SummaryWriter":
    """Open TensorBoard's file, before the first step, so that its imports are not part of a measured step."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)


def _drop_lines_after(path: Path, step: int) -> None:
    """Remove the lines of an interrupted run beyond the checkpoint that this run continues from."""
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if _step_of(line) <= step))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except ValueError:  # an incomplete line of a killed process
        return math.inf


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _average(values: torch.Tensor) -> None:
    """Average over workers in place."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        on_device = values.cuda() if dist.get_backend() == "nccl" else values
        dist.all_reduce(on_device)
        values.copy_(on_device / dist.get_world_size())
