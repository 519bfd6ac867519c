"""Training of the video decoder on unlabeled video, with the encoder frozen (VideoGen, sec. 3.4).

Loss: L1, distance of the frozen encoder's features, and, in the second part of training, a hinge adversarial term of
a discriminator that sees time (Align Your Latents, arXiv 2304.08818, sec. 3.1.1).
"""

from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from videogen.models.pretrained import load_component
from videogen.stages.autoencoder.network import load_autoencoder
from videogen.stages.cascade import CascadeConfig
from videogen.stages.decode.adversary import HingeAdversary
from videogen.stages.decode.network import VideoAutoencoder
from videogen.stages.objective import Objective, tensor_column


class DecodeObjective(Objective):
    """Latents to the pixels they were encoded from."""

    stage = "decode"
    component = "decode"

    def __init__(self, config: CascadeConfig, stage: str, model_folder: str) -> None:
        image_autoencoder = load_autoencoder(model_folder)
        model = VideoAutoencoder.from_image_autoencoder(image_autoencoder)
        for part in (model.encoder, model.quant_conv):
            part.requires_grad_(False)
        super().__init__(model)
        section = config.decode
        self.window = section.training_frames
        self.latents_field = f"latents_{config.latent_sizes[-1]}"
        self.fields = (self.latents_field, "frames")
        self.perceptual_weight = section.perceptual_weight
        self.adversarial_weight = section.adversarial_weight
        # In forward passes, of which a step has several where gradients are accumulated.
        passes = section.training.gradient_accumulation_steps
        self.adversarial_start = passes * int(section.adversarial_start * section.training.steps)
        self.register_buffer("passes_seen", torch.zeros((), dtype=torch.long))
        self.add_frozen("features", EncoderFeatures(image_autoencoder))
        self.adversary: HingeAdversary | None = None
        if self.adversarial_weight:
            self.adversary = HingeAdversary(section.discriminator_channels, section.training.learning_rate)

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return `latents` (B, F, C, h, w) and `frames` (B, F, 3, H, W) in [-1, 1]."""
        frames = tensor_column(rows, "frames").permute(0, 1, 4, 2, 3).contiguous() / 127.5 - 1
        return {"latents": tensor_column(rows, self.latents_field), "frames": frames}

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        """Return the loss on one window of consecutive frames of each clip."""
        frames_there = batch["frames"].shape[1]
        frames_taken = min(self.window, frames_there)
        start = int(torch.randint(frames_there - frames_taken + 1, (), generator=generator))
        window = slice(start, start + frames_taken)
        frames = batch["frames"][:, window]
        decoded = self.model(batch["latents"][:, window] * self.model.config.scaling_factor)
        l1 = (decoded - frames).abs().mean()
        loss, logs = l1, {"l1": l1.detach()}
        if self.perceptual_weight:
            perceptual = self.features.distance(decoded.flatten(0, 1), frames.flatten(0, 1))
            loss = loss + self.perceptual_weight * perceptual
            logs["perceptual"] = perceptual.detach()
        if self.adversary is not None and self.passes_seen >= self.adversarial_start:
            adversarial = self.adversary.generator_loss(real=frames, fake=decoded)
            loss = loss + self.adversarial_weight * adversarial
            logs["adversarial"] = adversarial.detach()
        self.passes_seen += 1
        return loss, logs

    def load_image_model(self, source: str) -> None:
        """Take the weights of an image VAE, which the temporal layers leave as they are."""
        image_decoder = VideoAutoencoder.from_image_autoencoder(load_component(AutoencoderKL, source, "vae"))
        self.model.load_state_dict(image_decoder.state_dict())


class EncoderFeatures(nn.Module):
    """Perceptual distance in the features of the frozen image encoder, which is always at hand."""

    def __init__(self, autoencoder: AutoencoderKL) -> None:
        super().__init__()
        self.encoder = autoencoder.encoder

    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the mean L1 distance of normalised features of (N, 3, H, W) images in [-1, 1]."""
        pairs = zip(self._levels(first), self._levels(second), strict=True)
        return torch.stack([(a - b.detach()).abs().mean() for a, b in pairs]).mean()

    def _levels(self, images: Tensor) -> list[Tensor]:
        hidden = self.encoder.conv_in(images)
        levels = []
        for block in self.encoder.down_blocks:
            hidden = block(hidden)
            levels.append(nn.functional.normalize(hidden, dim=1))
        return levels
