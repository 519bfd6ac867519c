"""Configuration section of one upsample stage."""

from pydantic import Field

from videogen.stages.base.config import BaseConfig


class UpsampleConfig(BaseConfig):
    """Latent super-resolution with noise-augmented low-resolution conditioning (VideoGen, sec. 3.2)."""

    low_res_noise: int = Field(
        default=250, ge=0, description="highest timestep of the noise on the low-resolution latents in training"
    )
    low_res_noise_at_sampling: int = Field(
        default=100, ge=0, description="timestep of the noise on the low-resolution latents in sampling"
    )
