"""`VideoDiscriminator`: a patch discriminator of three-dimensional convolutions, for the video decoder.

Only a discriminator that sees time is used: with an image discriminator beside it the decoder flickers more
(Align Your Latents, arXiv 2304.08818, sec. 3.1.1).
"""

import itertools

import torch
from torch import nn


class VideoDiscriminator(nn.Module):
    """Patch logits of a clip: real is high, decoded is low.

    Args:
        channels: width of the first layer; doubled twice.
    """

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        widths = (channels, 2 * channels, 4 * channels)
        layers: list[nn.Module] = [nn.Conv3d(3, widths[0], (3, 4, 4), (1, 2, 2), 1), nn.LeakyReLU(0.2)]
        for before, after in itertools.pairwise(widths):
            layers += [
                nn.Conv3d(before, after, (3, 4, 4), (1, 2, 2), 1),
                nn.GroupNorm(4, after),
                nn.LeakyReLU(0.2),
            ]
        layers.append(nn.Conv3d(widths[-1], 1, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Return logits (B, 1, F, h, w) for frames (B, F, 3, H, W) in [-1, 1]."""
        logits: torch.Tensor = self.layers(frames.transpose(1, 2))
        return logits
