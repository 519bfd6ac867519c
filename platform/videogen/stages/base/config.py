"""Configuration section of the base stage, which upsample stages extend."""

from pydantic import Field

from videogen.config import SamplingConfig, TimestepConfig, TrainingConfig, UNetConfig
from videogen.errors import UserError


class BaseConfig(TimestepConfig):
    """Latent video diffusion model that is guided by the reference image (VideoGen, sec. 3.2)."""

    latent_size: int = Field(ge=2, description="latent pixels a side")
    model: UNetConfig = Field(description="widths of the video U-Net")
    text_dropout: float = Field(default=0.1, ge=0, le=1, description="probability of an empty prompt in training")
    reference_dropout: float = Field(
        default=0.05, ge=0, le=1, description="probability of no reference image in training"
    )
    motion_dropout: float = Field(
        default=0.5, ge=0, le=1, description="probability of an unstated motion score in training"
    )
    reference_noise: int = Field(
        default=100, ge=0, description="highest timestep of the noise on the reference image in training"
    )
    reference_deviation: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="standard deviation of the latents from the reference; the U-Net then predicts only what the "
        "reference does not explain; null: it predicts everything",
    )
    motion_weight: float = Field(
        default=0.0,
        ge=0,
        description="weight, in the loss, of the error of the change from frame to frame",
        # Left out at its default, so that models trained before the key existed keep their identity.
        exclude_if=lambda weight: not weight,
    )
    sampling: SamplingConfig = Field(default=SamplingConfig(), description="sampling settings")
    training: TrainingConfig = Field(description="training settings")

    def require_can_start_from_image_model(self, name: str) -> None:
        """Raise `UserError` if `reference_deviation` is set: an image model does not predict a difference."""
        if self.reference_deviation is None:
            return
        key = f"{name.partition('_')[0]}.reference_deviation"
        raise UserError(
            f"{key} is {self.reference_deviation}, for a model that starts from nothing and predicts only what the "
            f"reference does not explain, but an image model predicts everything: with --init-from use --set "
            f"{key}=null."
        )
