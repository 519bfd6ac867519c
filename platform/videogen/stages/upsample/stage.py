"""Upsample stage: latent super-resolution by noise-augmented conditioning (VideoGen, sec. 3.2)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from videogen.diffusion import conditioning
from videogen.stages.base.stage import BaseStage
from videogen.stages.cascade import CascadeConfig
from videogen.stages.sample import Sample
from videogen.stages.upsample.config import UpsampleConfig


class UpsampleStage(BaseStage):
    """Low-resolution latents to the next size, by noise-augmented conditioning."""

    consumes: ClassVar = (*BaseStage.consumes, "latents")

    def __init__(self, name: str, parts: Mapping[str, Any], config: CascadeConfig, device: str = "cpu") -> None:
        super().__init__(name, parts, config, device)
        self.low_res_noise = config.stage_config(name, UpsampleConfig).low_res_noise_at_sampling

    def extra_inputs(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Return the conditions and the upsampled low-resolution latents with a little noise on them."""
        inputs = super().extra_inputs(samples)
        level = torch.full((len(samples),), self.low_res_noise, device=self.device)
        low_res = self.tensor(samples, "latents").transpose(1, 2)
        upsampled = conditioning.upsample(low_res, self.sides(samples))
        drawn = [
            torch.randn(upsampled.shape[1:], generator=generator)
            for generator in self.seeds([{"seed": int(sample["seed"]) + 1} for sample in samples])
        ]
        noise = torch.stack(drawn).to(self.device)
        inputs["low_res"] = self.schedule.add_noise(upsampled, noise, level)
        inputs["conditions"]["low_res_noise"] = level.float()
        return inputs
