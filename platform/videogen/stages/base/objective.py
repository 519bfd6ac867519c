"""Training of base and upsample stages: reference-guided latent video diffusion (VideoGen, sec. 3.2).

In training the reference image is the clip's first frame; a little noise on it closes the gap to generated images.
"""

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from videogen.diffusion import conditioning
from videogen.diffusion.denoiser import VideoDenoiser
from videogen.diffusion.schedule import NoiseSchedule
from videogen.models.pretrained import load_component
from videogen.stages.autoencoder.network import load_autoencoder
from videogen.stages.base.config import BaseConfig
from videogen.stages.cascade import CascadeConfig
from videogen.stages.classes import build_network
from videogen.stages.objective import Objective, tensor_column
from videogen.stages.text.network import encode_prompts, load_text_encoder


class BaseObjective(Objective):
    """Velocity prediction on the latents of key frames.

    Args:
        config: the cascade.
        stage: name of the stage.
        model_folder: local folder with the frozen autoencoder, tokenizer and text encoder.
    """

    def __init__(self, config: CascadeConfig, stage: str, model_folder: str) -> None:
        section = config.stage_config(stage, BaseConfig)
        super().__init__(build_network(config, stage))
        if section.reference_deviation is not None:
            # The linear guess is a good start; a random output on top of it would have to be unlearned.
            nn.init.zeros_(self.model.conv_out.weight)
            nn.init.zeros_(self.model.conv_out.bias)
        self.stage = self.component = stage
        self.section = section
        self.frame_step = config.temporal_factor
        self.latents_field = f"latents_{section.latent_size}"
        self.fields = (self.latents_field, "prompt_embeds", "fps")
        self.schedule = NoiseSchedule(config.diffusion)
        self.denoiser = VideoDenoiser(self.model, self.schedule, section.reference_deviation)
        self.scaling_factor = load_autoencoder(model_folder).config.scaling_factor
        self.empty_prompt = encode_prompts(*load_text_encoder(model_folder), [""])[0]
        if section.training.spatial_layers == "freeze":
            temporal = self.model.temporal_parameter_names()
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(name in temporal)

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return `latents` (B, C, F, h, w) and `fps` (B,) of the key frames, and `prompt_embeds` (B, L, D)."""
        return {
            "latents": self.key_frames(rows, self.latents_field),
            "prompt_embeds": tensor_column(rows, "prompt_embeds"),
            # The clip's own rate, not the preset's: with a 16 fps target, 24 fps sources yield 12 or 24 fps clips.
            "fps": tensor_column(rows, "fps") / self.frame_step,
        }

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        """Return the velocity loss; text, reference and motion are dropped independently of each other."""
        data = batch["latents"]
        count = len(data)
        noise = torch.randn(data.shape, generator=generator).to(data)
        timesteps = self.schedule.sample_timesteps(
            count, generator, self.section.timestep_shift, self.section.logit_std
        ).to(data.device)
        text_dropped = self._chance(self.section.text_dropout, count, generator).to(data.device)
        embeds = torch.where(text_dropped.reshape(-1, 1, 1), self.empty_prompt.to(data), batch["prompt_embeds"])
        reference, reference_noise = self.noised(data[:, :, 0], self.section.reference_noise, generator)
        present = ~self._chance(self.section.reference_dropout, count, generator).to(data.device)
        motion_unknown = self._chance(self.section.motion_dropout, count, generator).to(data.device)
        motion = conditioning.motion_score(data).masked_fill(motion_unknown, conditioning.NOT_STATED)
        conditions = {"fps": batch["fps"].to(motion), "motion": motion, "reference_noise": reference_noise}
        low_res = self.low_res_input(batch, conditions, generator)
        predicted = self.denoiser(
            self.schedule.add_noise(data, noise, timesteps),
            timesteps,
            embeds,
            reference=reference,
            reference_present=present,
            conditions=conditions,
            low_res=low_res,
        )
        losses = self.schedule.loss(
            predicted, data, noise, timesteps, self.section.loss_weighting, self.section.motion_weight
        )
        return losses.mean(), {"timestep_loss": (timesteps / self.schedule.num_train_timesteps, losses.detach())}

    def low_res_input(
        self, batch: dict[str, Tensor], conditions: dict[str, Tensor], generator: torch.Generator
    ) -> Tensor | None:
        """Return the low-resolution latents that an upsample stage sees, and add their noise level to `conditions`."""
        return None

    def load_image_model(self, source: str) -> None:
        """Inflate the U-Net of a text-to-image model."""
        self.model.load_image_model(load_component(UNet2DConditionModel, source, "unet"))

    def key_frames(self, rows: list[dict[str, Any]], field: str) -> Tensor:
        """Return the scaled latents (B, C, F, h, w) of the key frames in one column."""
        clips = tensor_column(rows, field)[:, :: self.frame_step]
        latents: Tensor = clips.transpose(1, 2).contiguous() * self.scaling_factor
        return latents

    def noised(self, data: Tensor, largest: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return `data` (B, ...) with noise of a random timestep up to `largest`, and the timesteps (B,)."""
        timesteps = torch.randint(largest + 1, (len(data),), generator=generator).to(data.device)
        noise = torch.randn(data.shape, generator=generator).to(data)
        return self.schedule.add_noise(data, noise, timesteps), timesteps.float()

    @staticmethod
    def _chance(probability: float, count: int, generator: torch.Generator) -> Tensor:
        return torch.rand(count, generator=generator) < probability
