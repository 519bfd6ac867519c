"""Video denoiser: noisy latents and conditions to a velocity, shared by training and sampling."""

from collections.abc import Mapping
from typing import Any

import torch

from videogen.diffusion.conditioning import unet_input
from videogen.diffusion.schedule import NoiseSchedule


class VideoDenoiser:
    """A video U-Net with its noise schedule and an optional linear prior around the reference image.

    Args:
        unet: see `VideoUNet.forward`.
        schedule: gives the noise level of a timestep.
        reference_deviation: standard deviation of the latents from those of the reference image. If given, the U-Net
            predicts only what the reference does not explain: the velocity is the best linear estimate under
            "latents = reference + normal deviation" plus the output of the U-Net. This is the preconditioning of EDM
            (arXiv 2206.00364, sec. 5) with the reference as the mean; a model trained from scratch then need not
            learn to copy the background. None for a U-Net that starts from an image model.
    """

    def __init__(self, unet: Any, schedule: NoiseSchedule, reference_deviation: float | None = None) -> None:
        self.unet = unet
        self.schedule = schedule
        self.reference_deviation = reference_deviation

    def __call__(
        self,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        prompt_embeds: torch.Tensor,
        *,
        reference: torch.Tensor,
        reference_present: torch.Tensor,
        conditions: Mapping[str, torch.Tensor],
        low_res: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the velocity (B, C, F, H, W).

        Args:
            noisy: (B, C, F, H, W).
            timesteps: (B,).
            prompt_embeds: (B, L, D).
            reference: (B, C, H, W).
            reference_present: (B,) 1 where the reference is given, 0 where it is dropped.
            conditions: name -> (B,).
            low_res: (B, C, F, H, W), upsampled, for upsample stages.
        """
        inputs = unet_input(noisy, reference, reference_present, low_res)
        output: torch.Tensor = self.unet(inputs, timesteps, prompt_embeds, conditions)
        if self.reference_deviation is None:
            return output
        present = reference_present.to(noisy.dtype).reshape(-1, 1, 1, 1, 1)
        return output + present * self._linear_estimate(noisy, timesteps, reference.unsqueeze(2))

    def _linear_estimate(self, noisy: torch.Tensor, timesteps: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """Return E[velocity | noisy] for latents that are normally distributed around the reference."""
        assert self.reference_deviation is not None
        alpha, sigma = self.schedule.scales(noisy, timesteps)
        variance = self.reference_deviation**2
        slope = alpha * sigma * (1 - variance) / (alpha.square() * variance + sigma.square())
        return slope * (noisy - alpha * reference) - sigma * reference
