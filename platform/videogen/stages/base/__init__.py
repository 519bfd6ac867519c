"""Base stage: text and reference image to latents of key frames at the lowest resolution."""

from videogen.stages.base.config import BaseConfig
from videogen.stages.definition import CascadeSizes, ObjectiveSpec, Preview, StageDefinition, latents_shape

__all__ = ["DEFINITION", "BaseConfig", "key_frames_shape"]


def key_frames_shape(config: CascadeSizes, name: str) -> str:
    """Return the size of the latents of the key frames of one stage."""
    return latents_shape(config, config.num_frames, config.stage_config(name, BaseConfig).latent_size)


DEFINITION = StageDefinition(
    section=BaseConfig,
    summary="sets it in motion",
    class_name="BaseStage",
    objective=ObjectiveSpec("BaseObjective", data="captioned", image_model="unet"),
    preview=Preview("Low-res", "latents"),
    output_shape=key_frames_shape,
)
