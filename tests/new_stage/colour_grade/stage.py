"""Colour grading stage: frames to frames in better colours."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from videogen.stages.cascade import CascadeConfig
from videogen.stages.colour_grade.config import ColourGradeConfig
from videogen.stages.component import Component
from videogen.stages.sample import Sample
from videogen.stages.stage import Stage


class ColourGradeStage(Stage):
    """Grades the colours of the finished frames."""

    consumes: ClassVar = ("frames",)
    produces: ClassVar = ("frames",)

    def __init__(self, name: str, parts: Mapping[str, Any], config: CascadeConfig, device: str = "cpu") -> None:
        super().__init__(name, parts, config, device)
        self.model = parts[name].to(self.device).eval()
        self.strength = config.stage_config(name, ColourGradeConfig).strength

    @classmethod
    def components(cls, name: str) -> dict[str, Component]:
        """Return the colour matrix."""
        return {name: Component("videogen.stages.colour_grade.network", "ColourGrade")}

    def run(self, samples: Sequence[Sample]) -> list[Sample]:
        """Return `frames`, uint8 (F, H, W, 3)."""
        plain = self.tensor(samples, "frames") / 255
        graded = plain + self.strength * (self.model(plain) - plain)
        return [{"frames": clip.cpu().numpy()} for clip in (graded.clamp(0, 1) * 255).round().to(torch.uint8)]
