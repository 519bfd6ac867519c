"""Adversary of the video decoder: a discriminator with hinge loss and an optimizer of its own.

The discriminator is a patch discriminator of three-dimensional convolutions. There is no image discriminator beside
it, because with one the decoder flickers more (Align Your Latents, arXiv 2304.08818, sec. 3.1.1).
"""

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional


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


class HingeAdversary:
    """Discriminator, its optimizer, and the two sides of the hinge loss.

    It stays outside of DeepSpeed: it is small, and a second engine in the first one's graph breaks ZeRO 1 and 2.
    """

    def __init__(self, channels: int, learning_rate: float) -> None:
        self.model = VideoDiscriminator(channels)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=learning_rate, betas=(0.5, 0.9))
        self._pending: list[tuple[Tensor, Tensor]] = []

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the decoder's side for frames (B, F, 3, H, W), and keep both for the discriminator's own step."""
        self._pending.append((real.detach(), fake.detach()))
        with _frozen(self.model):
            loss: Tensor = -self.model(fake.float()).mean()
            return loss

    def step(self) -> dict[str, float]:
        """Take the discriminator's step on what `generator_loss` has kept; nothing kept, nothing done."""
        if not self._pending:
            return {}
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for real, fake in self._pending:
            loss = (
                functional.relu(1 - self.model(real.float())).mean()
                + functional.relu(1 + self.model(fake.float())).mean()
            )
            torch.autograd.backward(loss / len(self._pending))
            total += float(loss.detach()) / len(self._pending)
        self._pending.clear()
        if dist.is_initialized() and dist.get_world_size() > 1:
            for parameter in self.model.parameters():
                assert parameter.grad is not None
                parameter.grad /= dist.get_world_size()
                dist.all_reduce(parameter.grad)
        self.optimizer.step()
        return {"discriminator": total}

    def to(self, device: torch.device) -> "HingeAdversary":
        """Move the discriminator; its optimizer has no state before the first step."""
        self.model.to(device)
        return self

    def state_dict(self) -> dict[str, Any]:
        """Return weights and optimizer state."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


@contextlib.contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Let gradients pass through `module` without reaching its weights."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
