"""Decoding stage: latents to frames by the video decoder (VideoGen, sec. 3.4)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from videogen.stages.cascade import CascadeConfig
from videogen.stages.component import Component
from videogen.stages.decode.tiling import decode_in_tiles
from videogen.stages.sample import Sample
from videogen.stages.stage import Stage


class DecodeStage(Stage):
    """Decodes clips of any length and size in overlapping chunks and tiles, at bounded memory."""

    consumes: ClassVar = ("latents",)
    produces: ClassVar = ("frames",)

    def __init__(self, name: str, parts: Mapping[str, Any], config: CascadeConfig, device: str = "cpu") -> None:
        super().__init__(name, parts, config, device)
        self.model = parts[name].to(self.device).eval()
        self.section = config.decode

    @classmethod
    def components(cls, name: str) -> dict[str, Component]:
        """Return the video decoder."""
        return {name: Component("videogen.stages.decode.network", "VideoAutoencoder")}

    def run(self, samples: Sequence[Sample]) -> list[Sample]:
        """Return `frames`, uint8 (F, H, W, 3)."""
        decoded = decode_in_tiles(self.model.decode_video, self.tensor(samples, "latents"), self.section)
        pixels = ((decoded.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return [{"frames": clip.permute(0, 2, 3, 1).contiguous().cpu().numpy()} for clip in pixels]
