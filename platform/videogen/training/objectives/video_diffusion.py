"""Base and upsample stages: reference-guided latent video diffusion (VideoGen, sec. 3.2).

In training the reference image is the clip's first frame; a little noise on it closes the gap to generated images.
An upsample stage also sees the low-resolution latents, noised by a random level that the model is told (noise
conditioning augmentation, Cascaded Diffusion Models, arXiv 2106.15282).
"""

from typing import Any

import torch
from torch import Tensor, nn

from videogen.config import CascadeConfig
from videogen.config.schema import UpsampleConfig
from videogen.diffusion import conditioning
from videogen.diffusion.denoiser import VideoDenoiser
from videogen.diffusion.schedule import NoiseSchedule
from videogen.models.networks import build_network
from videogen.models.text import encode_prompts
from videogen.training.objective import Objective
from videogen.training.objectives.components import load_image_autoencoder, load_text_encoder, tensor_column


class VideoDiffusionObjective(Objective):
    """Velocity prediction on the latents of key frames.

    Args:
        config: the cascade.
        stage: "base" or the name of an upsample stage.
        model_folder: local folder with the frozen autoencoder, tokenizer and text encoder.
    """

    def __init__(self, config: CascadeConfig, stage: str, model_folder: str) -> None:
        section = config.stage_config(stage)
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
        self.low_res_field = None
        if isinstance(section, UpsampleConfig):
            sizes = config.latent_sizes
            self.low_res_field = f"latents_{sizes[sizes.index(section.latent_size) - 1]}"
            self.fields = (*self.fields, self.low_res_field)
        self.schedule = NoiseSchedule(config.diffusion)
        self.denoiser = VideoDenoiser(self.model, self.schedule, section.reference_deviation)
        self.scaling_factor = load_image_autoencoder(model_folder).config.scaling_factor
        self.empty_prompt = encode_prompts(*load_text_encoder(model_folder), [""])[0]
        if section.training.spatial_layers == "freeze":
            temporal = self.model.temporal_parameter_names()
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(name in temporal)

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return `latents`, `low_res` (B, C, F, h, w) and `fps` (B,) of the key frames, `prompt_embeds` (B, L, D)."""
        batch = {
            "latents": self._key_frames(rows, self.latents_field),
            "prompt_embeds": tensor_column(rows, "prompt_embeds"),
            # Not the rate that is aimed at: of a film with 24 frames a second whole steps give 12 or 24.
            "fps": tensor_column(rows, "fps") / self.frame_step,
        }
        if self.low_res_field:
            batch["low_res"] = self._key_frames(rows, self.low_res_field)
        return batch

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        """Return the velocity loss; text, reference and motion are dropped independently of each other."""
        data = batch["latents"]
        count = len(data)
        noise = torch.randn(data.shape, generator=generator).to(data)
        timesteps = self.schedule.sample_timesteps(
            count, generator, self.section.timestep_shift, self.section.timestep_spread
        ).to(data.device)
        text_dropped = self._chance(self.section.text_dropout, count, generator).to(data.device)
        embeds = torch.where(text_dropped.reshape(-1, 1, 1), self.empty_prompt.to(data), batch["prompt_embeds"])
        reference, reference_noise = self._noised(data[:, :, 0], self.section.reference_noise, generator)
        present = ~self._chance(self.section.reference_dropout, count, generator).to(data.device)
        motion_unknown = self._chance(self.section.motion_dropout, count, generator).to(data.device)
        motion = conditioning.motion_score(data).masked_fill(motion_unknown, conditioning.NOT_STATED)
        conditions = {"fps": batch["fps"].to(motion), "motion": motion, "reference_noise": reference_noise}
        low_res = None
        if self.low_res_field:
            low_res, conditions["low_res_noise"] = self._noised(
                conditioning.enlarge(batch["low_res"], data.shape[-2:]), self.section.low_res_noise, generator
            )
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

    def _key_frames(self, rows: list[dict[str, Any]], field: str) -> Tensor:
        clips = tensor_column(rows, field)[:, :: self.frame_step]
        return clips.transpose(1, 2).contiguous() * self.scaling_factor

    def _noised(self, data: Tensor, largest: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return `data` (B, ...) with noise of a random timestep up to `largest`, and the timesteps (B,)."""
        timesteps = torch.randint(largest + 1, (len(data),), generator=generator).to(data.device)
        noise = torch.randn(data.shape, generator=generator).to(data)
        return self.schedule.add_noise(data, noise, timesteps), timesteps.float()

    @staticmethod
    def _chance(probability: float, count: int, generator: torch.Generator) -> Tensor:
        return torch.rand(count, generator=generator) < probability
