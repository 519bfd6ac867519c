"""The shape of a cascade's configuration: every number a preset may set, with its meaning and unit.

The sections follow the cascade (VideoGen, arXiv 2309.00398, sec. 3): text, reference image, base video diffusion,
latent super-resolution, flow-based temporal super-resolution, video decoder.
"""

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Section(BaseModel):
    """A part of the configuration: immutable, and closed to unknown keys."""

    # `model_` is pydantic's own prefix, but `model` is the natural name of a network's settings.
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class TrainingConfig(Section):
    """How one stage is trained. Counts are of optimizer steps and of clips."""

    steps: int = Field(ge=1, description="optimizer steps")
    batch_size: int = Field(ge=1, description="clips a step over all workers (images for reference and autoencoder)")
    learning_rate: float = Field(gt=0, description="peak learning rate of AdamW")
    warmup_steps: int = Field(default=0, ge=0, description="linear warm-up; a cosine to 5 % of the rate follows")
    weight_decay: float = Field(default=0.01, ge=0, description="decoupled weight decay of AdamW")
    betas: tuple[float, float] = Field(default=(0.9, 0.99), description="decay rates of the moments of AdamW")
    max_grad_norm: float = Field(default=1.0, gt=0, description="gradients are clipped to this global L2 norm")
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="data type of the forward and backward pass")
    zero_stage: Literal[0, 1, 2, 3] = Field(default=0, description="DeepSpeed ZeRO stage")
    gradient_accumulation_steps: int = Field(default=1, ge=1, description="micro-batches that make one step")
    ema_decay: float = Field(default=0.0, ge=0, lt=1, description="0 exports the last weights")
    num_workers: int = Field(default=1, ge=1, description="Ray Train workers, one a GPU")
    cpus_per_worker: float = Field(default=1, gt=0, description="CPU cores reserved for a worker")
    use_gpu: bool = Field(default=False, description="train on one GPU per worker instead of on CPUs")
    checkpoint_every: int = Field(default=0, ge=0, description="steps between checkpoints; 0 means only at the end")
    log_every: int = Field(default=10, ge=1, description="steps between lines in metrics.jsonl")
    shuffle_buffer: int = Field(default=4096, ge=1, description="clips that are mixed at a time, over all workers")
    where: str = Field(default="", description="SQL over the columns of the latents: which clips; empty means all")
    spatial_layers: Literal["train", "freeze"] = Field(
        default="train", description="freeze trains only what inflation has added (temporal layers, new inputs)"
    )


class SamplingConfig(Section):
    """How one diffusion stage samples."""

    num_inference_steps: int = Field(default=25, ge=1, description="denoising steps")
    guidance_scale: float = Field(default=7.5, ge=0, description="on the text; 1 turns it off")
    reference_guidance_scale: float = Field(default=1.0, ge=0, description="on the reference image; 1 turns it off")
    guidance_rescale: float = Field(default=0.0, ge=0, le=1, description="Lin et al. 2305.08891, sec. 3.4")


class DiffusionConfig(Section):
    """The noise schedule that all diffusion stages share."""

    num_train_timesteps: int = Field(default=1000, ge=1, description="timesteps of the schedule")
    beta_start: float = Field(default=0.00085, description="beta of the first timestep")
    beta_end: float = Field(default=0.012, description="beta of the last timestep, before rescaling to zero SNR")
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = Field(
        default="scaled_linear", description="interpolation from beta_start to beta_end, as in diffusers"
    )


class TextModelConfig(Section):
    """Widths of the CLIP text transformer."""

    hidden_size: int = Field(description="channels of a token embedding")
    num_hidden_layers: int = Field(description="transformer layers")
    num_attention_heads: int = Field(description="attention heads; must divide hidden_size")
    intermediate_size: int = Field(description="channels of the feed-forward layers")
    vocab_size: int | None = Field(default=None, description="None: the size of the preset's own small tokenizer")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} does not divide by num_attention_heads {self.num_attention_heads}: "
                f"use a divisor of {self.hidden_size}"
            )
        return self


class TextConfig(Section):
    """The frozen CLIP text encoder."""

    pretrained: str | None = Field(default=None, description="Stable-Diffusion-layout folder, URI or hub id")
    max_length: int = Field(default=77, ge=4, description="tokens, begin and end included")
    words: tuple[str, ...] = Field(default=(), description="one token each in the preset's own small tokenizer")
    model: TextModelConfig = Field(description="widths of the text transformer")


class AutoencoderModelConfig(Section):
    """Widths of the image VAE; one more level halves the latents once more."""

    block_out_channels: tuple[int, ...] = Field(min_length=1, description="channels of each level; multiples of 32")
    layers_per_block: int = Field(default=2, ge=1, description="residual blocks of a level")
    latent_channels: int = Field(default=4, ge=1, description="channels of the latents")
    norm_num_groups: int = Field(default=32, description="groups of group normalization; must divide every width")

    @field_validator("block_out_channels")
    @classmethod
    def _are_multiples_of_32(cls, channels: tuple[int, ...]) -> tuple[int, ...]:
        for width in channels:
            if width < 1 or width % 32:
                raise ValueError(f"the video decoder needs widths that 32 divides, but {width} is given: use 32 or 64")
        return channels

    @model_validator(mode="after")
    def _groups_divide(self) -> Self:
        for width in self.block_out_channels:
            if self.norm_num_groups < 1 or width % self.norm_num_groups:
                raise ValueError(
                    f"block_out_channels has {width}, which norm_num_groups {self.norm_num_groups} does not divide: "
                    f"use a divisor of {math.gcd(*self.block_out_channels)}"
                )
        return self


class AutoencoderConfig(Section):
    """The image VAE, off the shelf or the preset's own."""

    pretrained: str | None = Field(default=None, description="Stable-Diffusion-layout folder, URI or hub id")
    model: AutoencoderModelConfig = Field(description="widths of the VAE")
    kl_weight: float = Field(default=1e-6, ge=0, description="weight of the KL divergence in the loss")
    frames_per_clip: int = Field(default=2, ge=1, description="frames of a clip that enter one training step")
    training: TrainingConfig | None = Field(default=None, description="None: not trained; `pretrained` is used")


class UNetConfig(Section):
    """Widths of a denoising U-Net, two-dimensional or inflated."""

    block_out_channels: tuple[int, ...] = Field(description="channels of each level")
    attention_levels: tuple[bool, ...] = Field(description="which levels have text cross-attention")
    layers_per_block: int = Field(default=2, description="residual blocks of a level")
    attention_head_dim: int = Field(default=64, description="channels of one attention head")
    norm_num_groups: int = Field(default=32, description="groups of group normalization; must divide every width")
    gradient_checkpointing: bool = Field(default=False, description="recompute activations to save memory in training")
    pooled_text: bool = Field(default=False, description="add the text to the time embedding too")
    full_size_attention: bool = Field(
        default=True,
        # Models that have it keep the identity that they had before there were others.
        exclude_if=lambda has_it: has_it,
        description="video only: temporal attention at full size too, before the first level",
    )

    @model_validator(mode="after")
    def _levels_agree(self) -> Self:
        if len(self.block_out_channels) != len(self.attention_levels):
            raise ValueError(
                f"block_out_channels has {len(self.block_out_channels)} levels and attention_levels "
                f"{len(self.attention_levels)}: give both the same number"
            )
        for channels in self.block_out_channels:
            for name in ("norm_num_groups", "attention_head_dim"):
                if getattr(self, name) < 1 or channels % getattr(self, name):
                    raise ValueError(
                        f"block_out_channels has {channels}, which {name} {getattr(self, name)} does not divide: "
                        f"use a multiple"
                    )
        return self


class NoiseConfig(Section):
    """How a diffusion stage spends its training on the timesteps."""

    timestep_shift: float = Field(default=1.0, gt=0, description="above 1 trains more on noisy timesteps")
    timestep_spread: float | None = Field(
        default=None, gt=0, description="None: uniform timesteps; else logit-normal ones, smaller is narrower"
    )
    loss_weighting: Literal["velocity", "sample"] = Field(
        default="velocity", description="whose squared error counts; sample weighs down timesteps of little noise"
    )


class ReferenceConfig(NoiseConfig):
    """The text-to-image model that draws the reference image (sec. 3.1)."""

    pretrained: str | None = Field(default=None, description="Stable-Diffusion-layout folder, URI or hub id")
    model: UNetConfig | None = Field(default=None, description="widths of the U-Net, if it is trained here")
    text_dropout: float = Field(default=0.1, ge=0, le=1, description="chance of an empty prompt in training")
    clip_share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="share of a clip, from its start, whose frames are learned from: the reference is the first frame",
    )
    sampling: SamplingConfig = Field(default=SamplingConfig(), description="sampler settings")
    training: TrainingConfig | None = Field(default=None, description="None: not trained; `pretrained` is used")

    @model_validator(mode="after")
    def _has_no_time(self) -> Self:
        if self.model and not self.model.full_size_attention:
            raise ValueError(
                "full_size_attention false has no effect on a model of images: leave it out of reference.model"
            )
        return self


class BaseConfig(NoiseConfig):
    """The base latent video diffusion model guided by the reference image (sec. 3.2)."""

    latent_size: int = Field(ge=2, description="latent pixels a side")
    model: UNetConfig = Field(description="widths of the U-Net")
    text_dropout: float = Field(default=0.1, ge=0, le=1, description="chance of an empty prompt in training")
    reference_dropout: float = Field(default=0.05, ge=0, le=1, description="chance of no reference in training")
    motion_dropout: float = Field(default=0.5, ge=0, le=1, description="chance of an unstated amount of motion")
    reference_noise: int = Field(default=100, ge=0, description="largest timestep of noise on the reference")
    reference_deviation: float | None = Field(
        default=None, gt=0, lt=1, description="latents' deviation from the reference; predicts only what differs"
    )
    motion_weight: float = Field(
        default=0.0,
        ge=0,
        description="weight, in the loss, of the error of the change from frame to frame",
        # Models that were trained before there was this setting keep the identity that they had.
        exclude_if=lambda weight: not weight,
    )
    sampling: SamplingConfig = Field(default=SamplingConfig(), description="sampler settings")
    training: TrainingConfig = Field(description="training settings")


class UpsampleConfig(BaseConfig):
    """One latent super-resolution stage with noise-augmented low-resolution conditioning."""

    low_res_noise: int = Field(default=250, ge=0, description="largest timestep of noise on the low-res latents")
    low_res_noise_at_sampling: int = Field(
        default=100, ge=0, description="timestep of the noise on the low-res latents in sampling"
    )


class FlowModelConfig(Section):
    """Widths of the flow network and of its refinement."""

    channels: int = Field(default=64, description="channels of the flow network")
    scales: tuple[int, ...] = Field(default=(4, 2, 1), description="downsampling factors, coarse to fine")
    refine_channels: int = Field(default=64, description="channels of the refinement network")
    refine_blocks: int = Field(default=4, description="residual blocks of the refinement network")


class InterpolateConfig(Section):
    """Flow-based temporal super-resolution of the latents (sec. 3.3)."""

    model: FlowModelConfig = Field(description="widths of the flow network")
    training: TrainingConfig = Field(description="training settings")


class DecodeConfig(Section):
    """The video decoder: the image decoder with temporal layers that start as the identity (sec. 3.4)."""

    chunk_frames: int = Field(default=16, ge=2, description="frames decoded at once")
    overlap_frames: int = Field(default=4, ge=0, description="frames over which neighbouring chunks are blended")
    tile_size: int = Field(default=64, ge=8, description="latent pixels a side that are decoded at once")
    tile_overlap: int = Field(default=16, ge=0, description="latent pixels over which neighbouring tiles are blended")
    training_frames: int = Field(default=8, ge=2, description="consecutive frames that enter one training step")
    perceptual_weight: float = Field(default=0.1, ge=0, description="distance of frozen encoder features")
    adversarial_weight: float = Field(default=0.05, ge=0, description="weight of the adversarial loss")
    adversarial_start: float = Field(default=0.5, ge=0, le=1, description="share of the steps before it begins")
    discriminator_channels: int = Field(default=64, ge=4, description="channels of the first layer; even")
    training: TrainingConfig = Field(description="training settings")

    @field_validator("discriminator_channels")
    @classmethod
    def _is_even(cls, channels: int) -> int:
        # Its second layer is twice as wide and normalised in four groups.
        if channels % 2:
            raise ValueError(f"discriminator_channels {channels} must be even: use {channels - 1} or {channels + 1}")
        return channels

    @model_validator(mode="after")
    def _overlaps_fit(self) -> Self:
        if self.overlap_frames >= self.chunk_frames:
            raise ValueError(
                f"overlap_frames {self.overlap_frames} must be smaller than chunk_frames {self.chunk_frames}"
            )
        if self.tile_overlap >= self.tile_size:
            raise ValueError(f"tile_overlap {self.tile_overlap} must be smaller than tile_size {self.tile_size}")
        return self
