"""Text-to-image U-Net of the Stable Diffusion 2 layout."""

from typing import Any

from diffusers import UNet2DConditionModel

from videogen.config import UNetConfig
from videogen.models.unet import unet_arguments
from videogen.stages.cascade import CascadeConfig


def build_network(config: CascadeConfig, name: str = "reference") -> UNet2DConditionModel:  # noqa: ARG001 - as in every folder
    """Return the fresh U-Net of a preset."""
    assert config.reference.model is not None, "the configuration checks it"
    return build_image_unet(
        config.reference.model,
        channels=config.autoencoder.model.latent_channels,
        cross_attention_dim=config.text.model.hidden_size,
        sample_size=config.latent_sizes[-1],
    )


def build_image_unet(
    config: UNetConfig, channels: int, cross_attention_dim: int, sample_size: int
) -> UNet2DConditionModel:
    """Return a fresh `UNet2DConditionModel` of a preset's widths, in the SD 2.x layout."""
    arguments = unet_arguments(config, "2D")
    heads = tuple(width // config.attention_head_dim for width in config.block_out_channels)
    pooling: dict[str, Any] = {}
    if config.pooled_text:
        # diffusers' own options: pooled text in the time embedding, which then scales as well as shifts.
        pooling = {
            "addition_embed_type": "text",
            "addition_embed_type_num_heads": 4,
            "resnet_time_scale_shift": "scale_shift",
        }
    return UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=channels,
        out_channels=channels,
        cross_attention_dim=cross_attention_dim,
        use_linear_projection=True,
        # diffusers calls the number of heads `attention_head_dim` in its image U-Net.
        **{**arguments, "attention_head_dim": heads},
        mid_block_type="UNetMidBlock2DCrossAttn",
        **pooling,
    )
