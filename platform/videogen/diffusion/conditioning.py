"""Conditioning of the video U-Net: input channels and scalar conditions, shared by training and sampling.

Channels of the input: noisy latents | low-resolution latents (upsample stages) | reference latents | reference mask.
The mask is zero where the reference is dropped; otherwise it falls linearly with the distance in time from the
reference, from 1 at the first frame to 1 / F at the last.
Shapes: B clips, C latent channels, F frames, H x W latent pixels.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional

BASE_CONDITIONS = ("fps", "motion", "reference_noise")
UPSAMPLE_CONDITIONS = (*BASE_CONDITIONS, "low_res_noise")
NOT_STATED = -1.0
# Neighbouring frames differ by well under one latent standard deviation; the embedding resolves units.
_MOTION_UNIT = 100.0


def input_channels(latent_channels: int, with_low_res: bool) -> int:
    """Return the number of channels that `unet_input` gives."""
    return latent_channels * (3 if with_low_res else 2) + 1


def unet_input(
    noisy: torch.Tensor,
    reference: torch.Tensor,
    reference_present: torch.Tensor,
    low_res: torch.Tensor | None = None,
) -> torch.Tensor:
    """Stack the channels of the U-Net's input.

    Args:
        noisy: (B, C, F, H, W).
        reference: (B, C, H, W), repeated over the frames.
        reference_present: (B,) 1 where the reference is given, 0 where it is dropped.
        low_res: (B, C, F, H, W), upsampled to H x W.
    """
    frames = noisy.shape[2]
    present = reference_present.to(noisy.dtype).reshape(-1, 1, 1, 1, 1)
    repeated = reference.unsqueeze(2).expand(-1, -1, frames, -1, -1) * present
    # diffusers' temporal layers have no position embedding; the mask tells each frame its place in the clip.
    proximity = torch.linspace(1, 1 / frames, frames, device=noisy.device, dtype=noisy.dtype)
    mask = torch.ones_like(noisy[:, :1]) * proximity.reshape(1, 1, -1, 1, 1) * present
    parts = [noisy, repeated, mask] if low_res is None else [noisy, low_res, repeated, mask]
    return torch.cat(parts, dim=1)


def upsample(latents: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return latents (B, C, F, h, w), each frame upsampled bilinearly to `size`, as (B, C, F, H, W)."""
    batch = latents.shape[0]
    frames = latents.transpose(1, 2).flatten(0, 1)
    larger = functional.interpolate(frames, size=tuple(size), mode="bilinear", align_corners=False)
    return larger.reshape(batch, -1, *larger.shape[1:]).transpose(1, 2)


def motion_score(latents: torch.Tensor) -> torch.Tensor:
    """Return the motion score (B,): 100 times the mean absolute difference of neighbouring frames (B, C, F, H, W)."""
    return (latents[:, :, 1:] - latents[:, :, :-1]).abs().mean(dim=(1, 2, 3, 4)) * _MOTION_UNIT
