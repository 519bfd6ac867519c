"""The noise schedule: velocity prediction with zero terminal signal (Lin et al., arXiv 2305.08891).

Zero terminal signal matters more for video than for images: a mean shared by all frames survives much more noise
than one pixel does, so a schedule that leaves a little signal leaks it in training and lacks it in sampling.
"""

import torch
from diffusers import DDPMScheduler, UniPCMultistepScheduler

from videogen.config.schema import DiffusionConfig


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
    """Noising and its target at training time."""

    def __init__(self, config: DiffusionConfig) -> None:
        scheduler = DDPMScheduler(**config.model_dump(), prediction_type="v_prediction", rescale_betas_zero_snr=True)
        self.num_train_timesteps = config.num_train_timesteps
        self._alphas_cumprod = scheduler.alphas_cumprod

    def sample_timesteps(self, batch_size: int, generator: torch.Generator) -> torch.Tensor:
        """Return (B,) timesteps, stratified over the batch so that its loss varies less (VDM, arXiv 2107.00630)."""
        offset = torch.rand((), generator=generator)
        strata = (torch.randperm(batch_size, generator=generator) + offset) / batch_size
        return (strata * self.num_train_timesteps).long().clamp(max=self.num_train_timesteps - 1)

    def add_noise(self, data: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Return `data` (B, ...) at the noise levels of `timesteps` (B,)."""
        signal, spread = self._scales(data, timesteps)
        return signal * data + spread * noise

    def velocity(self, data: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Return the target of velocity prediction (Salimans and Ho, arXiv 2202.00512)."""
        signal, spread = self._scales(data, timesteps)
        return signal * noise - spread * data

    def _scales(self, data: torch.Tensor, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cumulative = self._alphas_cumprod.to(data.device)[timesteps.to(data.device)].to(data.dtype)
        cumulative = cumulative.reshape(-1, *(1,) * (data.ndim - 1))
        return cumulative.sqrt(), (1 - cumulative).sqrt()
