"""Training of an upsample stage: the base stage's objective with noised low-resolution latents as one more input.

The noise level of the low-resolution latents is drawn at random and is a condition of the network (noise conditioning
augmentation, Cascaded Diffusion Models, arXiv 2106.15282).
"""

from typing import Any

import torch
from torch import Tensor

from videogen.diffusion import conditioning
from videogen.stages.base.objective import BaseObjective
from videogen.stages.cascade import CascadeConfig
from videogen.stages.upsample.config import UpsampleConfig


class UpsampleObjective(BaseObjective):
    """Velocity prediction on the latents of key frames, given the same latents at the size below."""

    def __init__(self, config: CascadeConfig, stage: str, model_folder: str) -> None:
        super().__init__(config, stage, model_folder)
        section = config.stage_config(stage, UpsampleConfig)
        sizes = config.latent_sizes
        self.low_res_noise = section.low_res_noise
        self.low_res_field = f"latents_{sizes[sizes.index(section.latent_size) - 1]}"
        self.fields = (*self.fields, self.low_res_field)

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return the batch of the base stage and `low_res` (B, C, F, h, w)."""
        return {**super().collate(rows), "low_res": self.key_frames(rows, self.low_res_field)}

    def low_res_input(
        self, batch: dict[str, Tensor], conditions: dict[str, Tensor], generator: torch.Generator
    ) -> Tensor:
        """Return the upsampled and noised low-resolution latents, and add their noise level to `conditions`."""
        upsampled = conditioning.upsample(batch["low_res"], batch["latents"].shape[-2:])
        low_res, conditions["low_res_noise"] = self.noised(upsampled, self.low_res_noise, generator)
        return low_res
