"""Configuration section of the image autoencoder."""

import math
from typing import Self

from pydantic import Field, field_validator, model_validator

from videogen.config import Section, StageSection, TrainingConfig


class AutoencoderModelConfig(Section):
    """Widths of the image VAE; one more level halves the latents once more."""

    block_out_channels: tuple[int, ...] = Field(min_length=1, description="channels of each level; multiples of 32")
    layers_per_block: int = Field(default=2, ge=1, description="residual blocks per level")
    latent_channels: int = Field(default=4, ge=1, description="channels of the latents")
    norm_num_groups: int = Field(default=32, description="groups of every group normalization")

    @field_validator("block_out_channels")
    @classmethod
    def _are_multiples_of_32(cls, channels: tuple[int, ...]) -> tuple[int, ...]:
        for width in channels:
            if width < 1 or width % 32:
                raise ValueError(f"the video decoder needs widths that 32 divides, but {width} is given: use 32 or 64")
        return channels

    @model_validator(mode="after")
    def _groups_divide(self) -> Self:
        for width in self.block_out_channels:
            if self.norm_num_groups < 1 or width % self.norm_num_groups:
                raise ValueError(
                    f"block_out_channels has {width}, which norm_num_groups {self.norm_num_groups} does not divide: "
                    f"use a divisor of {math.gcd(*self.block_out_channels)}"
                )
        return self


class AutoencoderConfig(StageSection):
    """Image VAE, off the shelf or the preset's own."""

    pretrained: str | None = Field(
        default=None, description="Stable-Diffusion-layout folder, URI or hub id; null: trained with the cascade"
    )
    model: AutoencoderModelConfig = Field(description="widths of the VAE")
    kl_weight: float = Field(default=1e-6, ge=0, description="weight of the KL divergence in the loss")
    frames_per_clip: int = Field(default=2, ge=1, description="frames of a clip that enter one training step")
    training: TrainingConfig | None = Field(default=None, description="training settings; null: never trained")

    @model_validator(mode="after")
    def _has_origin(self) -> Self:
        if self.pretrained is None and self.training is None:
            raise ValueError("it needs either `pretrained` (an off-the-shelf model) or `training`")
        return self
