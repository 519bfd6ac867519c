"""Training curves: loss and speed of a stage's training run, read from its metrics log."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from videogen import storage
from videogen.reporting.charts import draw_loss


@dataclass(frozen=True)
class TrainingCurve:
    """Metrics of one training run."""

    stage: str
    steps: Sequence[int]
    losses: Sequence[float]
    samples_per_s: float
    seconds: float

    @property
    def final_loss(self) -> float:
        """Loss at the end: the median of the last tenth."""
        return float(np.median(self.losses[-max(1, len(self.losses) // 10) :]))

    def view(self) -> dict[str, Any]:
        """Return the values that the page shows."""
        return {
            "stage": self.stage,
            "final_loss": self.final_loss,
            "chart": draw_loss(self.stage, self.steps, self.losses, self.final_loss),
            "num_steps": self.steps[-1],
            "samples_per_s": self.samples_per_s,
            "seconds": self.seconds,
        }


def read_training_curve(folder: str, stage: str) -> TrainingCurve | None:
    """Read `<folder>/<stage>/metrics.jsonl`, one JSON object a line; None if there is nothing to draw."""
    uri = storage.join(folder, stage, "metrics.jsonl")
    if not storage.exists(uri):
        return None
    # A resumed run repeats the steps since its last checkpoint; the later line counts.
    lines = {line["step"]: line for line in map(json.loads, storage.read_text(uri).splitlines()) if "loss" in line}
    lines = {step: line for step, line in sorted(lines.items()) if math.isfinite(line["loss"])}
    if len(lines) < 2:
        return None
    rates = [line["samples_per_s"] for line in lines.values()]
    samples = np.diff([0, *(line["samples"] for line in lines.values())])
    seconds = float(np.sum(samples / np.maximum(rates, 1e-9)))
    losses = [line["loss"] for line in lines.values()]
    return TrainingCurve(stage, list(lines), losses, float(np.median(rates)), seconds)
