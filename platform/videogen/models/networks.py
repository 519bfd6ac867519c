"""Which network belongs to which stage: the one place that builds a fresh one from a preset."""

from typing import Any

from videogen.config import CascadeConfig
from videogen.config.schema import BaseConfig, UpsampleConfig
from videogen.diffusion import conditioning
from videogen.models.autoencoder import VideoAutoencoder, build_image_autoencoder
from videogen.models.flow import FlowInterpolator
from videogen.models.unet import build_image_unet, build_video_unet


def build_network(config: CascadeConfig, stage: str) -> Any:
    """Return the fresh network of "autoencoder" or of a stage with weights of its own (on torch's default device)."""
    latent_channels = config.autoencoder.model.latent_channels
    text_width = config.text.model.hidden_size
    if stage == "autoencoder":
        return build_image_autoencoder(config.autoencoder.model, config.resolution)
    if stage == "decode":
        return VideoAutoencoder.from_image_autoencoder(build_network(config, "autoencoder"))
    if stage == "interpolate":
        return FlowInterpolator(latent_channels=latent_channels, **config.interpolate.model.model_dump())
    if stage == "reference":
        assert config.reference.model is not None, "the configuration checks it"
        return build_image_unet(config.reference.model, latent_channels, text_width, config.latent_sizes[-1])
    section = config.stage_config(stage)
    if not isinstance(section, BaseConfig):
        raise KeyError(f"{stage!r} has no network: name it here")
    is_upsample = isinstance(section, UpsampleConfig)
    return build_video_unet(
        section.model,
        in_channels=conditioning.input_channels(latent_channels, with_low_res=is_upsample),
        out_channels=latent_channels,
        cross_attention_dim=text_width,
        sample_size=section.latent_size,
        conditions=conditioning.UPSAMPLE_CONDITIONS if is_upsample else conditioning.BASE_CONDITIONS,
    )
