"""Video U-Net: a two-dimensional Stable Diffusion U-Net inflated to video (VideoGen, sec. 3.2).

diffusers' `UNet3DConditionModel` has a temporal convolution after every residual block and a temporal attention
after every spatial one. Here they start as the identity, so that an inflated image model begins as exactly that
image model on every frame; scalar conditions enter through the time embedding.
"""

import functools
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import ModelMixin, UNet2DConditionModel, UNet3DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import get_timestep_embedding
from torch import nn
from torch.utils.checkpoint import checkpoint

from videogen.config import UNetConfig
from videogen.models.temporal_conv import compute_temporal_convolutions_flat

# `DiffusionPipeline.from_pretrained` looks for `ModelMixin` in the module of each component that is not its own.
__all__ = ["ModelMixin", "VideoUNet", "build_video_unet", "unet_arguments"]

_CONDITION_CHANNELS = 32
_ADDED = ("temp_convs", "temp_attentions", "transformer_in", "cond_proj")
"""Parts of the names of weights that an image U-Net does not have."""


class VideoUNet(UNet3DConditionModel):
    """Denoiser of video latents.

    Args:
        conditions: names of scalar conditions (such as fps); each is embedded and added to the time embedding.
        pooled_text: also add the sum of the text embeddings there. With cross-attention alone, a model trained from
            scratch needs many more steps to follow its prompt. In a model that starts from an image model, which
            follows prompts already, the weights start at zero.
        full_size_attention: temporal attention before the first level too, as in diffusers. With few channels it
            takes a third of a training step, and large motion is visible at the lower levels too.
        Others: as in `UNet3DConditionModel`.
    """

    _supports_gradient_checkpointing = True
    # `compile_repeated_blocks` compiles one block and reuses it for all of its kind.
    _repeated_blocks = ("BasicTransformerBlock",)

    @register_to_config
    def __init__(
        self,
        sample_size: int | None = None,
        in_channels: int = 4,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] = (
            "CrossAttnDownBlock3D",
            "CrossAttnDownBlock3D",
            "CrossAttnDownBlock3D",
            "DownBlock3D",
        ),
        up_block_types: tuple[str, ...] = (
            "UpBlock3D",
            "CrossAttnUpBlock3D",
            "CrossAttnUpBlock3D",
            "CrossAttnUpBlock3D",
        ),
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        norm_num_groups: int = 32,
        cross_attention_dim: int = 1024,
        attention_head_dim: int = 64,
        conditions: tuple[str, ...] = (),
        pooled_text: bool = False,
        full_size_attention: bool = True,
    ) -> None:
        condition_channels = _CONDITION_CHANNELS * len(conditions) + (cross_attention_dim if pooled_text else 0)
        # The plain constructor: the decorated one would add its own arguments to the configuration of this class.
        UNet3DConditionModel.__init__.__wrapped__(
            self,
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            down_block_types=tuple(down_block_types),
            up_block_types=tuple(up_block_types),
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            norm_num_groups=norm_num_groups,
            cross_attention_dim=cross_attention_dim,
            attention_head_dim=attention_head_dim,
            time_cond_proj_dim=condition_channels or None,
        )
        if not full_size_attention:
            self.transformer_in = _NoTransformer()
        compute_temporal_convolutions_flat(self)
        for name, module in self.named_modules():
            if isinstance(module, nn.Dropout):
                # Randomness comes from the objective's generator alone, so that a resumed step repeats itself.
                module.p = 0.0
            if name.endswith("proj_out") and ("temp_attentions" in name or "transformer_in" in name):
                nn.init.zeros_(module.weight)
                nn.init.zeros_(module.bias)
        if condition_channels:
            # Scalar conditions start at zero, so that inflation changes nothing. Pooled text starts at random: from
            # zero, a model learns shapes much later than colours.
            scalars = _CONDITION_CHANNELS * len(conditions)
            nn.init.zeros_(self.time_embedding.cond_proj.weight[:, :scalars])
            bound = cross_attention_dim**-0.5
            nn.init.uniform_(self.time_embedding.cond_proj.weight[:, scalars:], -bound, bound)

    def load_image_model(self, image_model: UNet2DConditionModel) -> None:
        """Take the weights of a Stable Diffusion U-Net; every frame then equals the image model's output.

        New input channels, conditions and the pooled text start at zero.

        Raises:
            ValueError: another layout or other widths.
        """
        self._require_like(image_model.config)
        own = self.state_dict()
        converted = {}
        for name, weight in image_model.state_dict().items():
            if name not in own:
                raise ValueError(f"The image model's weight {name!r} has no place in the video model: other layout.")
            converted[name] = _fitted(name, weight, own[name])
        for name in own:
            if name not in converted and not any(part in name for part in _ADDED):
                raise ValueError(f"The image model lacks the weight {name!r}: use a preset of the same layout.")
        self.load_state_dict(converted, strict=False)
        if self.time_embedding.cond_proj is not None:
            nn.init.zeros_(self.time_embedding.cond_proj.weight)

    def _require_like(self, image_config: Any) -> None:
        """Raise `ValueError` if settings differ that the shapes of the weights do not show."""
        channels = tuple(image_config.block_out_channels)
        heads = image_config.num_attention_heads or image_config.attention_head_dim
        for name, theirs, ours in (
            ("attention heads of width", _head_width(heads, channels), self.config.attention_head_dim),
            ("norm_num_groups", image_config.norm_num_groups, self.config.norm_num_groups),
        ):
            if theirs != ours:
                raise ValueError(f"The image model has {name} {theirs}, but the preset {ours}: set the preset's to it.")

    def temporal_parameter_names(self) -> set[str]:
        """Return the names of the weights that inflation adds: temporal layers, conditions and the widened input."""
        return {name for name, _ in self.named_parameters() if any(part in name for part in (*_ADDED, "conv_in"))}

    def _set_gradient_checkpointing(self, enable: bool = True, gradient_checkpointing_func: Any = None) -> None:
        # diffusers' three-dimensional blocks have no checkpointing of their own, so whole blocks are wrapped.
        for block in (*self.down_blocks, self.mid_block, *self.up_blocks):
            plain = type(block).forward.__get__(block)
            block.forward = functools.partial(checkpoint, plain, use_reentrant=False) if enable else plain

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        encoder_hidden_states: torch.Tensor,
        conditions: Mapping[str, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Predict the velocity.

        Args:
            sample: (B, C, F, H, W), noisy latents and image conditions along C.
            timestep: scalar or (B,), in [0, 1000).
            encoder_hidden_states: (B, L, D) text embeddings.
            conditions: name -> (B,) values; a negative value, like a missing name, means "not stated".

        Returns:
            (B, out_channels, F, H, W)
        """
        embedded = self._embed_conditions(conditions or {}, sample, encoder_hidden_states)
        output: torch.Tensor = super().forward(
            sample, timestep, encoder_hidden_states, timestep_cond=embedded, return_dict=False
        )[0]
        return output

    def _embed_conditions(
        self, conditions: Mapping[str, torch.Tensor], sample: torch.Tensor, text: torch.Tensor
    ) -> torch.Tensor | None:
        columns = []
        for name in self.config.conditions:
            values = conditions.get(name)
            if values is None:
                values = torch.full((sample.shape[0],), -1.0, device=sample.device)
            embedding = get_timestep_embedding(values.float().reshape(-1), _CONDITION_CHANNELS)
            columns.append(embedding * (values >= 0).reshape(-1, 1))
        if self.config.pooled_text:
            columns.append(text.sum(dim=1) / text.shape[1] ** 0.5)
        return torch.cat(columns, dim=1).to(sample.dtype) if columns else None


class _NoTransformer(nn.Module):
    """Identity in place of `transformer_in`, which diffusers' forward calls."""

    def forward(self, hidden_states: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
        return (hidden_states,)


def build_video_unet(
    config: UNetConfig,
    in_channels: int,
    out_channels: int,
    cross_attention_dim: int,
    sample_size: int,
    conditions: tuple[str, ...],
) -> VideoUNet:
    """Return a fresh `VideoUNet` of a preset's widths."""
    model: VideoUNet = VideoUNet(
        sample_size=sample_size,
        in_channels=in_channels,
        out_channels=out_channels,
        cross_attention_dim=cross_attention_dim,
        conditions=conditions,
        pooled_text=config.pooled_text,
        full_size_attention=config.full_size_attention,
        **unet_arguments(config, "3D"),
    )
    if config.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    return model


def unet_arguments(config: UNetConfig, suffix: str) -> dict[str, Any]:
    """Return the constructor arguments that image ("2D") and video ("3D") U-Nets share."""
    levels = config.attention_levels
    return {
        "block_out_channels": tuple(config.block_out_channels),
        "down_block_types": tuple(f"{'CrossAttnDown' if level else 'Down'}Block{suffix}" for level in levels),
        "up_block_types": tuple(f"{'CrossAttnUp' if level else 'Up'}Block{suffix}" for level in reversed(levels)),
        "layers_per_block": config.layers_per_block,
        "norm_num_groups": config.norm_num_groups,
        "attention_head_dim": config.attention_head_dim,
    }


def _head_width(num_heads: int | list[int] | tuple[int, ...], channels: tuple[int, ...]) -> int:
    """Return the one head width of an image U-Net, whose config states numbers of heads."""
    counts = (num_heads,) * len(channels) if isinstance(num_heads, int) else tuple(num_heads)
    widths = {width // count for width, count in zip(channels, counts, strict=True)}
    if len(widths) > 1:
        raise ValueError(
            f"The image model has attention heads of several widths ({sorted(widths)}, the SD 1.x layout), but the "
            f"video model needs one width: use a model of the SD 2.x layout."
        )
    return widths.pop()


def _fitted(name: str, weight: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return an image model's weight in the shape that the video model has for it."""
    if weight.ndim == 4 and target.ndim == 2:
        weight = weight[:, :, 0, 0]  # SD 1.x keeps proj_in and proj_out as 1 x 1 convolutions
    if name == "conv_in.weight" and weight.shape[1] < target.shape[1]:
        wide = torch.zeros_like(target)
        wide[:, : weight.shape[1]] = weight
        weight = wide
    if weight.shape != target.shape:
        raise ValueError(
            f"The image model's weight {name!r} has shape {tuple(weight.shape)}, "
            f"but {tuple(target.shape)} is needed: use a preset of the same widths."
        )
    return weight
