"""Base stage: reference-guided latent video diffusion (VideoGen, sec. 3.2)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch.nn import functional

from videogen.config import DiffusionConfig, FrameSize
from videogen.diffusion import conditioning
from videogen.diffusion.denoiser import VideoDenoiser
from videogen.diffusion.sampling import sample_latents
from videogen.diffusion.schedule import NoiseSchedule
from videogen.stages.base.config import BaseConfig
from videogen.stages.cascade import CascadeConfig
from videogen.stages.component import Component
from videogen.stages.sample import Sample
from videogen.stages.stage import Stage


class BaseStage(Stage):
    """Text and reference image to latents of the key frames, at the lowest resolution."""

    consumes: ClassVar[tuple[str, ...]] = ("prompt_embeds", "negative_prompt_embeds", "reference_image", "seed")
    produces: ClassVar = ("latents",)

    def __init__(self, name: str, parts: Mapping[str, Any], config: CascadeConfig, device: str = "cpu") -> None:
        super().__init__(name, parts, config, device)
        self.section = config.stage_config(name, BaseConfig)
        self.scheduler = parts["scheduler"]
        fields = {field: self.scheduler.config[field] for field in DiffusionConfig.model_fields}
        self.schedule = NoiseSchedule(DiffusionConfig(**fields))
        unet = parts[name].to(self.device).eval()
        self.denoiser = VideoDenoiser(unet, self.schedule, self.section.reference_deviation)
        self.autoencoder = parts["autoencoder"].to(self.device).eval()
        self.resolution = config.resolution
        self.num_frames = config.num_frames
        self.fps = config.fps

    @classmethod
    def components(cls, name: str) -> dict[str, Component]:
        """Return the stage's own U-Net, the scheduler, and the autoencoder whose encoder reads the reference image."""
        return {
            name: Component("videogen.models.unet", "VideoUNet"),
            "scheduler": Component("diffusers", "UniPCMultistepScheduler"),
            "autoencoder": Component("diffusers", "AutoencoderKL"),
        }

    def run(self, samples: Sequence[Sample]) -> list[Sample]:
        """Return `latents`, float32 (F, C, h, w) in the scale of the diffusion models."""
        channels = self.autoencoder.config.latent_channels
        latents = sample_latents(
            self.denoiser,
            self.scheduler,
            self.noise(samples, (channels, self.num_frames, *self.sides(samples))),
            prompt_embeds=self.tensor(samples, "prompt_embeds"),
            negative_prompt_embeds=self.tensor(samples, "negative_prompt_embeds"),
            reference=self._encode_reference(samples),
            sampling=self.section.sampling,
            **self.extra_inputs(samples),
        )
        return [{"latents": clip.transpose(0, 1).contiguous().cpu().numpy()} for clip in latents]

    def sides(self, samples: Sequence[Sample]) -> FrameSize:
        """Return height and width of the latents: those of the reference image times latent_size / resolution."""
        height, width = samples[0]["reference_image"].shape[:2]
        return FrameSize(height, width).scaled(self.section.latent_size, self.resolution)

    def extra_inputs(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Return the scalar conditions (and, for upsample stages, the low-resolution latents)."""
        count = len(samples)
        return {
            "conditions": {
                "fps": torch.full((count,), float(self.fps), device=self.device),
                "motion": torch.full((count,), conditioning.NOT_STATED, device=self.device),
                "reference_noise": torch.zeros(count, device=self.device),
            }
        }

    def _encode_reference(self, samples: Sequence[Sample]) -> torch.Tensor:
        """Return the latents (B, C, h, w) of the reference images at this stage's resolution."""
        images = self.tensor(samples, "reference_image").permute(0, 3, 1, 2) / 127.5 - 1
        pixels = self.sides(samples).scaled(2 ** (len(self.autoencoder.config.block_out_channels) - 1), 1)
        images = functional.interpolate(images, size=pixels, mode="bilinear", antialias=True)
        latents = self.autoencoder.encode(images).latent_dist.mode()
        scaled: torch.Tensor = latents * self.autoencoder.config.scaling_factor
        return scaled
