"""Noise schedule: velocity prediction with zero terminal SNR (Lin et al., arXiv 2305.08891, sec. 3.1).

Zero terminal SNR matters more for video than for images: the mean over all frames survives much more noise than a
single pixel, so a schedule that leaves a little signal at the last timestep leaks it in training, while sampling starts
without it.

Notation: noisy = alpha * data + sigma * noise, with alpha^2 + sigma^2 = 1.
"""

from typing import Literal

import torch
from diffusers import DDPMScheduler, UniPCMultistepScheduler

from videogen.config import DiffusionConfig


def build_scheduler(config: DiffusionConfig) -> UniPCMultistepScheduler:
    """Return the sampler that is saved with a model."""
    return UniPCMultistepScheduler(
        **config.model_dump(),
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        # Without effect on trailing steps, but Stable Diffusion pipelines insist on it.
        steps_offset=1,
        # The last step lands on the data instead of one noise level above it.
        final_sigmas_type="zero",
    )


class NoiseSchedule:
    """Noising and prediction targets in training."""

    def __init__(self, config: DiffusionConfig) -> None:
        scheduler = DDPMScheduler(**config.model_dump(), prediction_type="v_prediction", rescale_betas_zero_snr=True)
        self.num_train_timesteps = config.num_train_timesteps
        self._alphas_cumprod = scheduler.alphas_cumprod

    def sample_timesteps(
        self, batch_size: int, generator: torch.Generator, shift: float = 1.0, logit_std: float | None = None
    ) -> torch.Tensor:
        """Return (B,) timesteps, stratified over the batch so that its loss varies less (VDM, arXiv 2107.00630).

        Args:
            batch_size: B.
            generator: source of randomness.
            shift: above 1 draws more of the noisy timesteps (the timestep shift of SD 3, arXiv 2403.03206, sec. 5.3).
            logit_std: standard deviation of logit-normal timesteps (ibid., sec. 3.1) before the shift, or None for
                uniform ones.
        """
        offset = torch.rand((), generator=generator)
        strata = (torch.randperm(batch_size, generator=generator) + offset) / batch_size
        if logit_std is not None:
            strata = torch.sigmoid(logit_std * torch.special.ndtri(strata))
        strata = shift * strata / (1 + (shift - 1) * strata)
        return (strata * self.num_train_timesteps).long().clamp(max=self.num_train_timesteps - 1)

    def add_noise(self, data: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Return `data` (B, ...) at the noise levels of `timesteps` (B,)."""
        alpha, sigma = self.scales(data, timesteps)
        return alpha * data + sigma * noise

    def velocity(self, data: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Return the target of velocity prediction, alpha * noise - sigma * data (arXiv 2202.00512, sec. 4)."""
        alpha, sigma = self.scales(data, timesteps)
        return alpha * noise - sigma * data

    def loss(
        self,
        predicted: torch.Tensor,
        data: torch.Tensor,
        noise: torch.Tensor,
        timesteps: torch.Tensor,
        weighting: Literal["velocity", "sample"],
        motion_weight: float = 0.0,
    ) -> torch.Tensor:
        """Return (B,) squared errors of a predicted velocity, or of the clean sample that it implies.

        Args:
            predicted: the velocity, (B, ...).
            data: the clean sample.
            noise: noise that was added to it.
            timesteps: (B,).
            weighting: "velocity", or "sample" for the error of the clean sample.
            motion_weight: weight of an added term, the squared error of the difference of neighbouring frames; only
                for data (B, C, F, H, W). An error that all frames share does not contribute to it.
        """
        error = predicted - self.velocity(data, noise, timesteps)
        squared = error.square().mean(dim=tuple(range(1, data.ndim)))
        if motion_weight and data.shape[2] > 1:
            squared = squared + motion_weight * error.diff(dim=2).square().mean(dim=(1, 2, 3, 4))
        if weighting == "sample":
            # The error of the clean sample is the error of the velocity times sigma.
            squared = squared * self.scales(squared, timesteps)[1].square()
        return squared

    def scales(self, data: torch.Tensor, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return alpha and sigma at `timesteps` (B,), shaped to multiply `data` (B, ...)."""
        cumulative = self._alphas_cumprod.to(data.device)[timesteps.to(data.device)].to(data.dtype)
        cumulative = cumulative.reshape(-1, *(1,) * (data.ndim - 1))
        return cumulative.sqrt(), (1 - cumulative).sqrt()
