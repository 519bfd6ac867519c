"""Latents of key frames to latents at the full frame rate (VideoGen, sec. 3.3)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from videogen.models.flow import FlowInterpolator
from videogen.stages.configuration import load_cascade_config
from videogen.stages.stage import Sample, Stage


class InterpolateStage(Stage):
    """Inserts frames between key frames and keeps the key frames bit for bit."""

    kind: ClassVar = "interpolate"
    consumes: ClassVar = ("latents",)
    produces: ClassVar = ("latents",)

    def __init__(self, name: str, model: Any, factor: int, device: str = "cpu") -> None:
        super().__init__(name, device)
        self.model = model.to(self.device).eval()
        self.factor = factor

    @classmethod
    def from_pretrained(cls, folder: str, name: str = "interpolate", device: str = "cpu") -> Self:
        """Load `interpolate/`."""
        model = FlowInterpolator.from_pretrained(Path(folder) / "interpolate", use_safetensors=True)
        return cls(name, model, load_cascade_config(folder).temporal_factor, device)

    def run(self, samples: Sequence[Sample]) -> list[Sample]:
        """Return `latents`, float32 (factor * (F - 1) + 1, C, h, w)."""
        latents = self.model.interpolate(self.tensor(samples, "latents"), self.factor)
        return [{"latents": clip.cpu().numpy()} for clip in latents]
