"""Image autoencoder: frames to latents. Trained or taken off the shelf; generation uses it inside other stages."""

from videogen.stages.autoencoder.config import AutoencoderConfig, AutoencoderModelConfig
from videogen.stages.definition import ObjectiveSpec, StageDefinition

__all__ = ["DEFINITION", "AutoencoderConfig", "AutoencoderModelConfig"]

DEFINITION = StageDefinition(
    section=AutoencoderConfig,
    summary="image VAE",
    class_name=None,
    objective=ObjectiveSpec("AutoencoderObjective", data="raw", image_model="vae"),
)
