"""Configuration section of the reference model."""

from typing import Self

from pydantic import Field, model_validator

from videogen.config import SamplingConfig, TimestepConfig, TrainingConfig, UNetConfig


class ReferenceConfig(TimestepConfig):
    """Text-to-image model that draws the reference image (VideoGen, sec. 3.1)."""

    pretrained: str | None = Field(
        default=None, description="Stable-Diffusion-layout folder, URI or hub id; null: trained with the cascade"
    )
    model: UNetConfig | None = Field(default=None, description="widths of the U-Net to train")
    text_dropout: float = Field(default=0.1, ge=0, le=1, description="probability of an empty prompt in training")
    clip_share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="fraction of each clip, from its start, from which training frames are drawn",
    )
    sampling: SamplingConfig = Field(default=SamplingConfig(), description="sampling settings")
    training: TrainingConfig | None = Field(default=None, description="training settings; null: never trained")

    @model_validator(mode="after")
    def _has_no_time(self) -> Self:
        if self.model and not self.model.full_size_attention:
            raise ValueError(
                "full_size_attention false has no effect on a model of images: leave it out of reference.model"
            )
        return self

    @model_validator(mode="after")
    def _has_origin(self) -> Self:
        if self.pretrained is None and self.training is None:
            raise ValueError("it needs either `pretrained` (an off-the-shelf model) or `training`")
        if self.training is not None and self.model is None:
            raise ValueError("`training` needs `model`, the widths of the U-Net to train")
        return self
