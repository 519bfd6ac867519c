"""Colour matrix, the smallest network that a stage can have."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from videogen.stages.cascade import CascadeConfig


class ColourGrade(ModelMixin, ConfigMixin):
    """Adds to each pixel a linear map of its colour."""

    @register_to_config
    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.matrix = nn.Linear(channels, channels)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Map frames (..., 3) in [0, 1] to the same shape."""
        return frames + self.matrix(frames)


def build_network(config: CascadeConfig, name: str) -> ColourGrade:
    """Return a fresh colour matrix; every cascade has the same."""
    return ColourGrade()
