"""Configuration section of the video decoder."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from videogen.config import StageSection, TrainingConfig


class DecodeConfig(StageSection):
    """Video decoder: the image decoder with temporal layers that start as the identity (VideoGen, sec. 3.4)."""

    chunk_frames: int = Field(default=16, ge=2, description="frames decoded at once")
    overlap_frames: int = Field(default=4, ge=0, description="frames over which neighbouring chunks are blended")
    tile_size: int = Field(default=64, ge=8, description="latent pixels a side that are decoded at once")
    tile_overlap: int = Field(default=16, ge=0, description="latent pixels over which neighbouring tiles are blended")
    training_frames: int = Field(default=8, ge=2, description="consecutive frames that enter one training step")
    perceptual_weight: float = Field(
        default=0.1, ge=0, description="weight of the distance in features of the frozen encoder"
    )
    adversarial_weight: float = Field(default=0.05, ge=0, description="weight of the adversarial loss; 0: none")
    adversarial_start: float = Field(
        default=0.5, ge=0, le=1, description="share of the training steps before the adversarial loss begins"
    )
    discriminator_channels: int = Field(
        default=64, ge=4, description="channels of the discriminator's first layer; an even number"
    )
    training: TrainingConfig = Field(description="training settings")

    @field_validator("discriminator_channels")
    @classmethod
    def _is_even(cls, channels: int) -> int:
        # Its second layer is twice as wide and normalised in four groups.
        if channels % 2:
            raise ValueError(f"discriminator_channels {channels} must be even: use {channels - 1} or {channels + 1}")
        return channels

    @model_validator(mode="after")
    def _overlaps_fit(self) -> Self:
        if self.overlap_frames >= self.chunk_frames:
            raise ValueError(
                f"overlap_frames {self.overlap_frames} must be smaller than chunk_frames {self.chunk_frames}"
            )
        if self.tile_overlap >= self.tile_size:
            raise ValueError(f"tile_overlap {self.tile_overlap} must be smaller than tile_size {self.tile_size}")
        return self
