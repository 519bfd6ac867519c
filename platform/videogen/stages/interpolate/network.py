"""Flow network: flow-based temporal super-resolution of latents (VideoGen, sec. 3.3).

Bidirectional flow between two neighbouring latents is estimated coarse to fine, both are warped backward to the time
in between, blended by a visibility mask and refined. The estimation follows RIFE (arXiv 2011.06294): every scale
corrects the flow and the mask of the one before, on inputs that are already warped.

A fresh model returns the linear blend of its two inputs: flow, mask correction and refinement start at zero.
"""

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional

from videogen.stages.cascade import CascadeConfig

# `DiffusionPipeline.from_pretrained` looks for `ModelMixin` in the module of each component that is not its own.
__all__ = ["FlowInterpolator", "ModelMixin", "backward_warp", "blend", "build_network"]

_FLOW_CHANNELS = 4
_MASK_CHANNELS = 1


class FlowInterpolator(ModelMixin, ConfigMixin):
    """Latents between two neighbouring latents.

    Args:
        latent_channels: channels of a latent.
        channels: width of the flow blocks.
        scales: factors by which each flow block sees the latents reduced, coarse to fine.
        refine_channels: width of the refinement.
        refine_blocks: residual blocks of the refinement; 0 leaves it out.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 4,
        channels: int = 64,
        scales: tuple[int, ...] = (4, 2, 1),
        refine_channels: int = 64,
        refine_blocks: int = 4,
    ) -> None:
        super().__init__()
        self.scales = tuple(scales)
        # Inputs of a block: both latents, both warped, flow, mask, tau.
        inputs = 4 * latent_channels + _FLOW_CHANNELS + _MASK_CHANNELS + 1
        self.flow_blocks = nn.ModuleList(_FlowBlock(inputs, channels) for _ in self.scales)
        self.refine = _Refinement(inputs + latent_channels, latent_channels, refine_channels, refine_blocks)

    def forward(self, first: torch.Tensor, second: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
        """Return the latents at time `tau`; see `estimate` for the parts.

        Args:
            first, second: (B, C, H, W) neighbouring latents.
            tau: (B,) times in (0, 1) between them.

        Returns:
            (B, C, H, W)
        """
        return self.estimate(first, second, tau)["latents"]

    def estimate(self, first: torch.Tensor, second: torch.Tensor, tau: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the parts of the estimate.

        `latents`; the warped and blended `coarse` latents; `flow` (B, 4, H, W) in latent pixels (to the first, then
        to the second latent, x before y); `visibility` (B, 1, H, W), the weight of the first in [0, 1].
        """
        tau = tau.reshape(-1, 1, 1, 1).to(first)
        tau_map = tau.expand(-1, 1, *first.shape[-2:])
        flow = first.new_zeros(first.shape[0], _FLOW_CHANNELS, *first.shape[-2:])
        # A logit of (1 - tau) / tau makes the untrained blend the linear one.
        logit = torch.log((1 - tau_map) / tau_map)
        warped = (first, second)
        for scale, block in zip(self.scales, self.flow_blocks, strict=True):
            change = block(torch.cat([first, second, *warped, flow, logit, tau_map], dim=1), scale)
            flow = flow + change[:, :_FLOW_CHANNELS]
            logit = logit + change[:, _FLOW_CHANNELS:]
            warped = (backward_warp(first, flow[:, :2]), backward_warp(second, flow[:, 2:]))
        visibility = torch.sigmoid(logit)
        coarse = visibility * warped[0] + (1 - visibility) * warped[1]
        latents = coarse + self.refine(torch.cat([first, second, *warped, flow, logit, tau_map, coarse], dim=1))
        return {"latents": latents, "coarse": coarse, "flow": flow, "visibility": visibility}

    def interpolate(self, latents: torch.Tensor, factor: int) -> torch.Tensor:
        """Insert `factor - 1` frames between all neighbours; the given frames are kept bit for bit.

        Args:
            latents: (B, F, C, H, W).
            factor: a power of two.

        Returns:
            (B, factor * (F - 1) + 1, C, H, W)
        """
        batch, frames = latents.shape[:2]
        result = latents.new_empty(batch, factor * (frames - 1) + 1, *latents.shape[2:])
        result[:, ::factor] = latents
        first, second = latents[:, :-1].flatten(0, 1), latents[:, 1:].flatten(0, 1)
        for step in range(1, factor):
            tau = latents.new_full((first.shape[0],), step / factor)
            result[:, step::factor] = self(first, second, tau).unflatten(0, (batch, frames - 1))
        return result


def build_network(config: CascadeConfig, name: str = "interpolate") -> FlowInterpolator:  # noqa: ARG001 - as in every folder
    """Return the fresh flow network of a preset."""
    channels = config.autoencoder.model.latent_channels
    model: FlowInterpolator = FlowInterpolator(latent_channels=channels, **config.interpolate.model.model_dump())
    return model


def backward_warp(values: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """Return `values` looked up at every pixel's position plus `flow`, bilinear, clamped at the border.

    Args:
        values: (B, C, H, W).
        flow: (B, 2, H, W) in pixels, x before y.
    """
    height, width = values.shape[-2:]
    x = torch.arange(width, device=values.device, dtype=values.dtype)
    y = torch.arange(height, device=values.device, dtype=values.dtype)
    grid_x = (x[None, None, :] + flow[:, 0]) * (2 / max(width - 1, 1)) - 1
    grid_y = (y[None, :, None] + flow[:, 1]) * (2 / max(height - 1, 1)) - 1
    grid = torch.stack([grid_x, grid_y], dim=-1)
    return functional.grid_sample(values, grid, mode="bilinear", padding_mode="border", align_corners=True)


def blend(latents: torch.Tensor, factor: int) -> torch.Tensor:
    """Insert `factor - 1` linear blends between all neighbours: the baseline that interpolation must beat.

    Args:
        latents: (B, F, C, H, W).
    """
    frames = latents.shape[1]
    result = latents.new_empty(latents.shape[0], factor * (frames - 1) + 1, *latents.shape[2:])
    for step in range(factor):
        weight = step / factor
        result[:, step::factor] = latents if step == 0 else (1 - weight) * latents[:, :-1] + weight * latents[:, 1:]
    return result


class _FlowBlock(nn.Module):
    """Correct flow (4) and mask logit (1) at one scale."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.SiLU(),
        )
        self.out = nn.Conv2d(channels, _FLOW_CHANNELS + _MASK_CHANNELS, 3, padding=1)
        _zero(self.out)

    def forward(self, inputs: torch.Tensor, scale: int) -> torch.Tensor:
        size: Sequence[int] = inputs.shape[-2:]
        if scale > 1:
            inputs = functional.avg_pool2d(inputs, scale, ceil_mode=True)
        output: torch.Tensor = self.out(self.layers(inputs))
        if scale > 1:
            output = functional.interpolate(output, size=size, mode="bilinear", align_corners=False)
            # Flow is in pixels of the full size; a coarse block works in its own.
            output = torch.cat([output[:, :_FLOW_CHANNELS] * scale, output[:, _FLOW_CHANNELS:]], dim=1)
        return output


class _Refinement(nn.Module):
    """Residual convolutions that repair what warping cannot show (disoccluded parts, sub-pixel detail)."""

    def __init__(self, inputs: int, outputs: int, channels: int, num_blocks: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(inputs, channels, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.SiLU(),
                nn.Conv2d(channels, channels, 3, padding=1),
                nn.SiLU(),
                nn.Conv2d(channels, channels, 3, padding=1),
            )
            for _ in range(num_blocks)
        )
        self.conv_out = nn.Conv2d(channels, outputs, 3, padding=1)
        _zero(self.conv_out)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.conv_in(inputs)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        output: torch.Tensor = self.conv_out(functional.silu(hidden))
        return output


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
