"""Upsample stage: low-resolution latents to the next size, by the base stage's model with one more input."""

from videogen.stages.base import key_frames_shape
from videogen.stages.definition import ObjectiveSpec, Preview, StageDefinition
from videogen.stages.upsample.config import UpsampleConfig

__all__ = ["DEFINITION", "UpsampleConfig"]

DEFINITION = StageDefinition(
    section=UpsampleConfig,
    summary="latent super-resolution",
    class_name="UpsampleStage",
    objective=ObjectiveSpec("UpsampleObjective", data="captioned", image_model="unet"),
    preview=Preview("Upsampled", "latents"),
    output_shape=key_frames_shape,
    max_count=4,
)
