"""Training of the image VAE: L1 and squared reconstruction error, and a weakly weighted KL divergence."""

from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor

from videogen.models.pretrained import load_component
from videogen.stages.autoencoder.network import build_network
from videogen.stages.cascade import CascadeConfig
from videogen.stages.objective import Objective

_STD_MOMENTUM = 0.95
_INITIAL_LOG_VARIANCE = -5.0
# The squared error corrects colours early in training, the absolute error sharpens edges later.
_SQUARED_WEIGHT = 2.0
# An error of brightness counts in all three channels at once; this weights errors of colour as much.
_COLOUR_WEIGHT = 1.2


class AutoencoderObjective(Objective):
    """Reconstruction of frames. The scale of the latents is measured in training and saved with the model."""

    stage = "autoencoder"
    component = "autoencoder"
    fields = ("frames",)

    def __init__(self, config: CascadeConfig, stage: str, model_folder: str) -> None:
        super().__init__(build_network(config))
        _start_linear(self.model)
        _reduce_posterior_noise(self.model.quant_conv)
        self.kl_weight = config.autoencoder.kl_weight
        self.frames_per_clip = config.autoencoder.frames_per_clip
        # The low resolutions of the cascade are encoded too, so the VAE is trained at every size that it is used at.
        # (Sizes of squares; frames of other aspect ratios are reduced by the same factor.)
        self.sizes = [size * config.vae_scale_factor for size in config.latent_sizes]
        self.register_buffer("latent_std", torch.ones(()))

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return `frames` (B * frames_per_clip, 3, H, W) in [-1, 1], spread evenly over each clip."""
        picked = []
        for row in rows:
            frames = row["frames"]
            picked.append(frames[np.linspace(0, len(frames) - 1, self.frames_per_clip).astype(int)])
        frames = torch.from_numpy(np.concatenate(picked)).permute(0, 3, 1, 2)
        return {"frames": frames.float() / 127.5 - 1}

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        """Return L1 + KL over a batch at one of the cascade's sizes, drawn by step."""
        frames = batch["frames"]
        # The largest size determines the final quality, so half of the steps train it.
        choice = int(torch.randint(2 * len(self.sizes) - 1, (), generator=generator))
        size = self.sizes[min(choice, len(self.sizes) - 1)]
        if size != self.sizes[-1]:
            sides = [side * size // self.sizes[-1] for side in frames.shape[-2:]]
            frames = torch.nn.functional.interpolate(frames, size=sides, mode="area")
        frames = _vary_colours(frames, generator)
        posterior = self.model.encode(frames).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(frames)
        decoded = self.model.decode(posterior.mean + posterior.std * noise).sample
        difference = decoded - frames
        colour = difference - difference.mean(dim=1, keepdim=True)
        reconstruction = difference.abs().mean() + _SQUARED_WEIGHT * difference.square().mean()
        reconstruction = reconstruction + _COLOUR_WEIGHT * (colour.abs().mean() + colour.square().mean())
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        with torch.no_grad():
            self.latent_std.lerp_(posterior.mean.float().std(), 1 - _STD_MOMENTUM)
        logs = {"l1": reconstruction.detach(), "kl": kl.detach(), "latent_std": self.latent_std.clone()}
        return reconstruction + self.kl_weight * kl, logs

    def load_image_model(self, source: str) -> None:
        """Take the weights of another image VAE."""
        self.model.load_state_dict(load_component(AutoencoderKL, source, "vae").state_dict())

    def with_weights(self, state_dict: dict[str, Tensor]) -> Any:
        """Return the VAE with the measured scaling factor, so that scaled latents have unit variance."""
        model = super().with_weights(state_dict)
        model.register_to_config(scaling_factor=round(1 / float(self.latent_std), 5))
        return model


def _start_linear(model: torch.nn.Module) -> None:
    """Let every residual branch start at zero (Fixup, arXiv 1901.09321).

    With random branches the VAE often loses an axis of colour early and takes about a thousand steps to recover it.
    """
    for module in model.modules():
        if isinstance(module, ResnetBlock2D):
            torch.nn.init.zeros_(module.conv2.weight)
            torch.nn.init.zeros_(module.conv2.bias)
        elif isinstance(module, Attention):
            torch.nn.init.zeros_(module.to_out[0].weight)
            torch.nn.init.zeros_(module.to_out[0].bias)


def _reduce_posterior_noise(quant_conv: torch.nn.Conv2d) -> None:
    """Start the posterior nearly noiseless: at unit variance the noise would hide what the encoder first learns."""
    half = quant_conv.out_channels // 2
    assert quant_conv.bias is not None
    with torch.no_grad():
        quant_conv.weight[half:] *= 0.1
        quant_conv.bias[half:] = _INITIAL_LOG_VARIANCE


def _vary_colours(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Return images (N, 3, H, W) in [-1, 1] with channels exchanged and saturation raised by up to a factor of four.

    Most pixels of most videos are nearly grey, so a VAE first learns brightness alone; this augmentation gives colour
    as large a share of the loss.
    """
    count = len(frames)
    order = torch.rand(count, 3, generator=generator).argsort(dim=1).to(frames.device)
    mixed = frames[torch.arange(count, device=frames.device)[:, None], order]
    grey = mixed.mean(dim=1, keepdim=True)
    saturation = 1 + 3 * torch.rand(count, 1, 1, 1, generator=generator).to(frames)
    return (grey + saturation * (mixed - grey)).clamp(-1, 1)
