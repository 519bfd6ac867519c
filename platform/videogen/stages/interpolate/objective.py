"""Training of the flow network on unlabeled clips at their full frame rate (VideoGen, sec. 3.3)."""

from typing import Any

import torch
from torch import Tensor

from videogen.stages.autoencoder.network import load_autoencoder
from videogen.stages.cascade import CascadeConfig
from videogen.stages.interpolate.network import build_network
from videogen.stages.objective import Objective, tensor_column

_CHARBONNIER_EPSILON = 1e-3
_COARSE_WEIGHT = 0.5


class InterpolateObjective(Objective):
    """Reconstruct the frames between key frames from the key frames.

    Both the refined latents and the warped, unrefined ones are compared with the truth: the flow must explain the
    motion by itself, and the refinement repairs only what is left.
    """

    stage = "interpolate"
    component = "interpolate"

    def __init__(self, config: CascadeConfig, stage: str, model_folder: str) -> None:
        super().__init__(build_network(config))
        self.factor = config.temporal_factor
        self.latents_field = f"latents_{config.latent_sizes[-1]}"
        self.fields = (self.latents_field,)
        self.scaling_factor = load_autoencoder(model_folder).config.scaling_factor

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return `latents` (B, F, C, h, w) at the full rate."""
        return {"latents": tensor_column(rows, self.latents_field) * self.scaling_factor}

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        """Return the Charbonnier loss at one random time between each pair of key frames."""
        clips = batch["latents"]
        keys = clips[:, :: self.factor]
        step = int(torch.randint(1, self.factor, (), generator=generator)) if self.factor > 2 else 1
        truth = clips[:, step :: self.factor].flatten(0, 1)
        first, second = keys[:, :-1].flatten(0, 1), keys[:, 1:].flatten(0, 1)
        # Time runs both ways: half of the batches are played backward.
        if int(torch.randint(2, (), generator=generator)):
            first, second, step = second, first, self.factor - step
        tau = torch.full((len(first),), step / self.factor, device=clips.device)
        parts = self.model.estimate(first, second, tau)
        refined = _charbonnier(parts["latents"] - truth)
        coarse = _charbonnier(parts["coarse"] - truth)
        linear = _charbonnier((1 - tau[0]) * first + tau[0] * second - truth)
        logs = {"refined": refined.detach(), "coarse": coarse.detach(), "blend": linear.detach()}
        return refined + _COARSE_WEIGHT * coarse, logs


def _charbonnier(difference: Tensor) -> Tensor:
    return (difference.square() + _CHARBONNIER_EPSILON**2).sqrt().mean()
