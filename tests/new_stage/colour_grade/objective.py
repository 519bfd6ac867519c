"""Training of the colour grading stage: undo a random darkening."""

from typing import Any

import torch
from torch import Tensor

from videogen.stages.cascade import CascadeConfig
from videogen.stages.colour_grade.network import build_network
from videogen.stages.objective import Objective, tensor_column


class ColourGradeObjective(Objective):
    """Darkened frames to the frames as they were."""

    fields = ("frames",)

    def __init__(self, config: CascadeConfig, stage: str, model_folder: str) -> None:
        super().__init__(build_network(config, stage))
        self.stage = self.component = stage

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return `frames` (B, F, H, W, 3) in [0, 1]."""
        return {"frames": tensor_column(rows, "frames") / 255}

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        """Return the squared error under a random darkening of each clip."""
        light = torch.rand(len(batch["frames"]), 1, 1, 1, 1, generator=generator).to(batch["frames"])
        graded = self.model(batch["frames"] * (0.5 + 0.25 * light))
        return (graded - batch["frames"]).square().mean(), {}
