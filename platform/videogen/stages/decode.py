"""Latents to frames, by the video decoder (VideoGen, sec. 3.4)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from videogen.config.schema import DecodeConfig
from videogen.models.autoencoder import VideoAutoencoder
from videogen.models.tiling import decode_in_tiles
from videogen.stages.configuration import load_cascade_config
from videogen.stages.stage import Sample, Stage


class DecodeStage(Stage):
    """Decodes clips of any length and size in overlapping chunks and tiles, at bounded memory."""

    kind: ClassVar = "decode"
    consumes: ClassVar = ("latents",)
    produces: ClassVar = ("frames",)

    def __init__(self, name: str, model: Any, section: DecodeConfig, device: str = "cpu") -> None:
        super().__init__(name, device)
        self.model = model.to(self.device).eval()
        self.section = section

    @classmethod
    def from_pretrained(cls, folder: str, name: str = "decode", device: str = "cpu") -> Self:
        """Load `decode/`."""
        model = VideoAutoencoder.from_pretrained(Path(folder) / "decode", use_safetensors=True)
        return cls(name, model, load_cascade_config(folder).decode, device)

    def run(self, samples: Sequence[Sample]) -> list[Sample]:
        """Return `frames`, uint8 (F, H, W, 3)."""
        decoded = decode_in_tiles(self.model.decode_video, self.tensor(samples, "latents"), self.section)
        pixels = ((decoded.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return [{"frames": clip.permute(0, 2, 3, 1).contiguous().cpu().numpy()} for clip in pixels]
