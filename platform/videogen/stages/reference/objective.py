"""Training of the reference model: latent diffusion on single frames (VideoGen, sec. 3.1).

The result is saved as a complete `StableDiffusionPipeline`, as off-the-shelf models are.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor

from videogen.diffusion.schedule import NoiseSchedule, build_scheduler
from videogen.models.pretrained import load_component
from videogen.stages.autoencoder.network import load_autoencoder
from videogen.stages.cascade import CascadeConfig
from videogen.stages.objective import Objective, tensor_column
from videogen.stages.reference.network import build_network
from videogen.stages.text.network import encode_prompts, load_text_encoder


class ReferenceObjective(Objective):
    """Denoise the latents of one frame of a captioned clip."""

    stage = "reference"
    component = "reference"

    def __init__(self, config: CascadeConfig, stage: str, model_folder: str) -> None:
        section = config.reference
        super().__init__(build_network(config))
        self.config = config
        self.latents_field = f"latents_{config.latent_sizes[-1]}"
        self.fields = (self.latents_field, "prompt_embeds")
        self.schedule = NoiseSchedule(config.diffusion)
        self.section = section
        self.model_folder = model_folder
        self.scaling_factor = load_autoencoder(model_folder).config.scaling_factor
        self.empty_prompt = encode_prompts(*load_text_encoder(model_folder), [""])[0]

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return `latents` (B, F, C, h, w) and `prompt_embeds` (B, L, D)."""
        return {
            "latents": tensor_column(rows, self.latents_field),
            "prompt_embeds": tensor_column(rows, "prompt_embeds"),
        }

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        """Return the velocity loss on a random early frame of each clip, with text dropout.

        The first frames alone are too few images to learn outlines from; late frames show the end of a motion, from
        which a clip cannot continue.
        """
        clips = batch["latents"]
        count = len(clips)
        num_early = max(1, round(clips.shape[1] * self.section.clip_share))
        frame = torch.randint(num_early, (count,), generator=generator)
        data = clips[torch.arange(count), frame.to(clips.device)] * self.scaling_factor
        noise = torch.randn(data.shape, generator=generator).to(data)
        timesteps = self.schedule.sample_timesteps(
            count, generator, self.section.timestep_shift, self.section.logit_std
        ).to(data.device)
        dropped = (torch.rand(count, generator=generator) < self.section.text_dropout).to(data.device)
        embeds = torch.where(dropped.reshape(-1, 1, 1), self.empty_prompt.to(data), batch["prompt_embeds"])
        predicted = self.model(self.schedule.add_noise(data, noise, timesteps), timesteps, embeds).sample
        losses = self.schedule.loss(predicted, data, noise, timesteps, self.section.loss_weighting)
        return losses.mean(), {"timestep_loss": (timesteps / self.schedule.num_train_timesteps, losses.detach())}

    def load_image_model(self, source: str) -> None:
        """Take the weights of another text-to-image U-Net."""
        self.model.load_state_dict(load_component(UNet2DConditionModel, source, "unet").state_dict())

    def save(self, state_dict: dict[str, Tensor], folder: str) -> None:
        """Write a `StableDiffusionPipeline` around the trained U-Net."""
        tokenizer, text_encoder = load_text_encoder(self.model_folder)
        StableDiffusionPipeline(
            vae=load_autoencoder(self.model_folder),
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=self.with_weights(state_dict),
            scheduler=build_scheduler(self.config.diffusion),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(Path(folder))
