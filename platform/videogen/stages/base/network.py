"""Video U-Net of the base stage."""

from videogen.diffusion import conditioning
from videogen.models.unet import VideoUNet, build_video_unet
from videogen.stages.base.config import BaseConfig
from videogen.stages.cascade import CascadeConfig


def build_network(
    config: CascadeConfig, name: str = "base", conditions: tuple[str, ...] = conditioning.BASE_CONDITIONS
) -> VideoUNet:
    """Return the fresh U-Net of a base or upsample stage; `low_res_noise` among the conditions adds its input."""
    section = config.stage_config(name, BaseConfig)
    latent_channels = config.autoencoder.model.latent_channels
    return build_video_unet(
        section.model,
        in_channels=conditioning.input_channels(latent_channels, with_low_res="low_res_noise" in conditions),
        out_channels=latent_channels,
        cross_attention_dim=config.text.model.hidden_size,
        sample_size=section.latent_size,
        conditions=conditions,
    )
