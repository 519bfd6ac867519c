"""Configuration sections that several stages share: training, sampling, noise schedule, U-Net.

The section of a stage is in the folder of the stage. Every field has a description with its meaning and unit, from
which the reference of all configuration keys is generated.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A part of the configuration: immutable, and closed to unknown keys."""

    # `model_` is pydantic's own prefix, but `model` is the natural name of a network's settings.
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class TrainingConfig(Section):
    """Training of one stage. Counts are of optimizer steps and of clips."""

    steps: int = Field(ge=1, description="optimizer steps")
    batch_size: int = Field(
        ge=1, description="clips per optimizer step over all workers (images for reference and autoencoder)"
    )
    learning_rate: float = Field(gt=0, description="highest learning rate of AdamW")
    warmup_steps: int = Field(
        default=0, ge=0, description="steps of linear warm-up; a cosine decay to 5 % of the learning rate follows"
    )
    weight_decay: float = Field(default=0.01, ge=0, description="weight decay of AdamW")
    betas: tuple[float, float] = Field(
        default=(0.9, 0.99), description="decay of AdamW's averages of the gradient and of its square"
    )
    max_grad_norm: float = Field(default=1.0, gt=0, description="norm to which the gradient of all weights is clipped")
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="precision of activations; weights and optimizer states are always fp32"
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(default=0, description="DeepSpeed ZeRO stage")
    gradient_accumulation_steps: int = Field(
        default=1, ge=1, description="forward and backward passes per optimizer step and worker"
    )
    ema_decay: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="decay per step of the exported moving average of the weights; 0 exports the last weights",
    )
    num_workers: int = Field(default=1, ge=1, description="Ray Train workers, one per GPU")
    cpus_per_worker: float = Field(default=1, gt=0, description="CPU cores of each worker")
    use_gpu: bool = Field(default=False, description="whether each worker has a GPU")
    checkpoint_every: int = Field(default=0, ge=0, description="steps between checkpoints; 0: only at the end")
    log_every: int = Field(default=10, ge=1, description="steps between lines in metrics.jsonl")
    shuffle_buffer: int = Field(
        default=4096, ge=1, description="clips among which the order is fully random, over all workers"
    )
    where: str = Field(
        default="", description="SQL expression over the columns of the latents that selects clips; empty: all"
    )
    spatial_layers: Literal["train", "freeze"] = Field(
        default="train", description="freeze trains only the layers that inflation has added (temporal, new inputs)"
    )


class StageSection(Section):
    """Base class of the section of a stage.

    A stage that can be trained has a field `training`; one that can be used off the shelf has a field `pretrained`.
    """

    def training_settings(self) -> TrainingConfig | None:
        """Return the field `training`, or None."""
        settings = getattr(self, "training", None)
        return settings if isinstance(settings, TrainingConfig) else None

    def is_off_the_shelf(self) -> bool:
        """Return whether the field `pretrained` names a model."""
        return bool(getattr(self, "pretrained", None))

    def require_can_start_from_image_model(self, name: str) -> None:
        """Raise `UserError` if a setting of stage `name` conflicts with the weights of an image model."""


class SamplingConfig(Section):
    """Sampling of one diffusion stage."""

    num_inference_steps: int = Field(default=25, ge=1, description="denoising steps")
    guidance_scale: float = Field(default=7.5, ge=0, description="classifier-free guidance on the text; 1: off")
    reference_guidance_scale: float = Field(
        default=1.0, ge=0, description="classifier-free guidance on the reference image; 1: off"
    )
    guidance_rescale: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the rescaled prediction (Lin et al., arXiv 2305.08891, sec. 3.4); 0: off",
    )


class DiffusionConfig(Section):
    """Noise schedule that all diffusion stages share."""

    num_train_timesteps: int = Field(default=1000, ge=1, description="timesteps of the noise schedule")
    beta_start: float = Field(default=0.00085, description="variance of the noise added at the first timestep")
    beta_end: float = Field(default=0.012, description="variance of the noise added at the last timestep")
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = Field(
        default="scaled_linear", description="interpolation between beta_start and beta_end, named as in diffusers"
    )


class UNetConfig(Section):
    """Widths of a denoising U-Net, two-dimensional or inflated to video."""

    block_out_channels: tuple[int, ...] = Field(description="channels of each level")
    attention_levels: tuple[bool, ...] = Field(description="whether each level has text cross-attention")
    layers_per_block: int = Field(default=2, description="residual blocks per level")
    attention_head_dim: int = Field(default=64, description="channels of one attention head")
    norm_num_groups: int = Field(default=32, description="groups of every group normalization")
    gradient_checkpointing: bool = Field(
        default=False, description="recompute activations in the backward pass to save memory"
    )
    pooled_text: bool = Field(default=False, description="add the pooled text embeddings to the time embedding")
    full_size_attention: bool = Field(
        default=True,
        # Left out at its default, so that models trained before the key existed keep their identity.
        exclude_if=lambda is_on: is_on,
        description="video only: temporal attention before the first level too",
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

    @property
    def downsampling(self) -> int:
        """Factor by which the lowest level is smaller than the first, per side."""
        factor: int = 2 ** (len(self.block_out_channels) - 1)
        return factor


class TimestepConfig(StageSection):
    """Distribution of the training timesteps of a diffusion stage, and weight of each."""

    timestep_shift: float = Field(
        default=1.0, gt=0, description="timestep shift of SD 3 (arXiv 2403.03206); above 1 favours noisy timesteps"
    )
    logit_std: float | None = Field(
        default=None,
        gt=0,
        description="standard deviation of logit-normal timesteps before the shift; null: uniform timesteps",
    )
    loss_weighting: Literal["velocity", "sample"] = Field(
        default="velocity",
        description="target of the squared error: velocity, or the clean sample (less weight on low-noise timesteps)",
    )
