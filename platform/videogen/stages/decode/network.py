"""Video autoencoder: the image VAE with temporal layers in its decoder (VideoGen, sec. 3.4).

The encoder is the image VAE's and stays frozen, so that latents remain those of the image model. The temporal layers
start as the identity: a fresh `VideoAutoencoder` decodes every frame as the image VAE does.
"""

import re
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_3d_blocks import MidBlockTemporalDecoder
from torch import nn

from videogen.models.temporal_conv import compute_temporal_convolutions_flat
from videogen.stages.autoencoder.network import build_network as build_image_autoencoder
from videogen.stages.cascade import CascadeConfig

# `DiffusionPipeline.from_pretrained` looks for `ModelMixin` in the module of each component that is not its own.
__all__ = ["ModelMixin", "VideoAutoencoder", "build_network"]


class VideoAutoencoder(AutoencoderKLTemporalDecoder):
    """Image encoder and temporal decoder.

    Args:
        norm_num_groups: groups of every normalisation; diffusers' class knows only 32.
        Others: as in `AutoencoderKLTemporalDecoder`.
    """

    @register_to_config
    def __init__(
        self,
        down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",),
        block_out_channels: tuple[int, ...] = (64,),
        layers_per_block: int = 1,
        latent_channels: int = 4,
        norm_num_groups: int = 32,
        sample_size: int = 32,
        scaling_factor: float = 0.18215,
    ) -> None:
        # diffusers builds every norm of the decoder with 32 groups (so widths are multiples of 32); regrouped below.
        # The plain constructor: the decorated one would add its own arguments to the configuration of this class.
        AutoencoderKLTemporalDecoder.__init__.__wrapped__(
            self,
            down_block_types=tuple(down_block_types),
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            latent_channels=latent_channels,
            sample_size=sample_size,
            scaling_factor=scaling_factor,
        )
        # The image decoder's middle always has two residual blocks; diffusers' temporal one has `layers_per_block`.
        widest = block_out_channels[-1]
        self.decoder.mid_block = MidBlockTemporalDecoder(
            in_channels=widest, out_channels=widest, attention_head_dim=widest, num_layers=2
        )
        # The image VAE has this layer and diffusers' temporal one does not; without it the two decoders differ.
        self.post_quant_conv = nn.Conv2d(latent_channels, latent_channels, 1)
        compute_temporal_convolutions_flat(self)
        for name, module in self.named_modules():
            if isinstance(module, nn.GroupNorm):
                module.num_groups = norm_num_groups
            if name.endswith("temporal_res_block.conv2"):
                nn.init.zeros_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.dirac_(self.decoder.time_conv_out.weight)
        nn.init.zeros_(self.decoder.time_conv_out.bias)

    @classmethod
    def from_image_autoencoder(cls, autoencoder: AutoencoderKL) -> "VideoAutoencoder":
        """Return the video autoencoder that decodes every frame as `autoencoder` does."""
        config = autoencoder.config
        model: VideoAutoencoder = cls(
            down_block_types=tuple(config.down_block_types),
            block_out_channels=tuple(config.block_out_channels),
            layers_per_block=config.layers_per_block,
            latent_channels=config.latent_channels,
            norm_num_groups=config.norm_num_groups,
            sample_size=config.sample_size,
            scaling_factor=config.scaling_factor,
        )
        spatial = {
            re.sub(r"^(decoder\..*resnets\.\d+)\.", r"\1.spatial_res_block.", name): weight
            for name, weight in autoencoder.state_dict().items()
        }
        result = model.load_state_dict(spatial, strict=False)
        if result.unexpected_keys:
            raise ValueError(f"The image VAE's weight {result.unexpected_keys[0]!r} has no place in the video decoder.")
        return model

    def decode_video(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode clips.

        Args:
            latents: (B, F, C, h, w) in the scale of the diffusion models.

        Returns:
            (B, F, 3, H, W), nominally in [-1, 1].
        """
        batch, frames = latents.shape[:2]
        flat = self.post_quant_conv(latents.flatten(0, 1) / self.config.scaling_factor)
        # A GroupNorm over a single frame would see other statistics than training did, so frames stay together.
        decoded: torch.Tensor = self.decode(flat, num_frames=frames).sample
        return decoded.reshape(batch, frames, *decoded.shape[1:])

    def forward(self, latents: torch.Tensor, **_: Any) -> torch.Tensor:
        """Decode clips; see `decode_video`."""
        return self.decode_video(latents)


def build_network(config: CascadeConfig, name: str = "decode") -> VideoAutoencoder:  # noqa: ARG001 - as in every folder
    """Return the video autoencoder that decodes every frame as a fresh image VAE does."""
    model: VideoAutoencoder = VideoAutoencoder.from_image_autoencoder(build_image_autoencoder(config))
    return model
