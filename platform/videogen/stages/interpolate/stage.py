"""Interpolation stage: latents of key frames to latents at the full frame rate (VideoGen, sec. 3.3)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from videogen.stages.cascade import CascadeConfig
from videogen.stages.component import Component
from videogen.stages.sample import Sample
from videogen.stages.stage import Stage


class InterpolateStage(Stage):
    """Inserts frames between key frames and keeps the key frames bit for bit."""

    consumes: ClassVar = ("latents",)
    produces: ClassVar = ("latents",)

    def __init__(self, name: str, parts: Mapping[str, Any], config: CascadeConfig, device: str = "cpu") -> None:
        super().__init__(name, parts, config, device)
        self.model = parts[name].to(self.device).eval()
        self.factor = config.temporal_factor

    @classmethod
    def components(cls, name: str) -> dict[str, Component]:
        """Return the flow network."""
        return {name: Component("videogen.stages.interpolate.network", "FlowInterpolator")}

    def run(self, samples: Sequence[Sample]) -> list[Sample]:
        """Return `latents`, float32 (factor * (F - 1) + 1, C, h, w)."""
        latents = self.model.interpolate(self.tensor(samples, "latents"), self.factor)
        return [{"latents": clip.cpu().numpy()} for clip in latents]
