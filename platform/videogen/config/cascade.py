"""`CascadeConfig`: the whole cascade, and what follows from its numbers."""

import itertools
import math
import re
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from videogen.config.aspects import SQUARE, FrameSize, fitted_size, parse_ratio
from videogen.config.schema import (
    AutoencoderConfig,
    BaseConfig,
    DecodeConfig,
    DiffusionConfig,
    InterpolateConfig,
    ReferenceConfig,
    Section,
    TextConfig,
    UpsampleConfig,
)

MAX_UPSAMPLE_STAGES = 4


def stage_kind(name: str) -> str:
    """Return what kind of stage a name stands for: "upsample_2" is an "upsample"."""
    return re.sub(r"_\d+$", "", name)


class CascadeConfig(Section):
    """One cascade from prompt to frames."""

    name: str = Field(description="name of the preset, shown in reports")
    seed: int = Field(default=0, ge=0, description="of initial weights, data order and training noise")
    num_frames: int = Field(ge=2, description="key frames that the base stage generates")
    fps: float = Field(gt=0, description="key frames a second")
    temporal_factor: int = Field(ge=1, description="frames per key frame after interpolation; a power of two")
    aspect_ratios: tuple[str, ...] = Field(
        default=(SQUARE,),
        description="width:height of the clips that are trained on; each clip is cut to the nearest one",
        # Left out where all is square, as it always was: what was made before keeps its identity.
        exclude_if=lambda ratios: ratios == (SQUARE,),
    )
    num_frames_buckets: tuple[int, ...] = Field(
        default=(),
        description="key frames of further clips to train on, beside those of num_frames; no batch mixes two lengths",
        # As with aspect_ratios.
        exclude_if=lambda buckets: not buckets,
    )
    diffusion: DiffusionConfig = Field(default=DiffusionConfig(), description="noise schedule of all diffusion stages")
    text: TextConfig = Field(description="text encoder")
    autoencoder: AutoencoderConfig = Field(description="image VAE")
    reference: ReferenceConfig = Field(description="text-to-image model")
    base: BaseConfig = Field(description="base video diffusion model")
    upsample: tuple[UpsampleConfig, ...] = Field(
        default=(), max_length=MAX_UPSAMPLE_STAGES, description="latent super-resolution stages, in order"
    )
    interpolate: InterpolateConfig = Field(description="frame interpolation")
    decode: DecodeConfig = Field(description="video decoder")

    @field_validator("temporal_factor")
    @classmethod
    def _is_power_of_two(cls, factor: int) -> int:
        if factor & (factor - 1):
            raise ValueError(f"temporal_factor {factor} must be a power of two: use 1, 2, 4 or 8")
        return factor

    @field_validator("aspect_ratios", mode="before")
    @classmethod
    def _are_texts(cls, ratios: Any) -> Any:
        ratios = ratios.split(",") if isinstance(ratios, str) else ratios
        if not isinstance(ratios, list | tuple) or not ratios or not all(isinstance(ratio, str) for ratio in ratios):
            raise ValueError("it must be one or several of width:height, e.g. 1:1,16:9,9:16")
        return ratios

    @field_validator("aspect_ratios")
    @classmethod
    def _are_ratios(cls, ratios: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted((ratio.strip() for ratio in ratios), key=parse_ratio))

    @field_validator("num_frames_buckets", mode="before")
    @classmethod
    def _are_several(cls, buckets: Any) -> Any:
        if isinstance(buckets, str):
            buckets = [int(part) if part.strip().isdecimal() else part for part in buckets.split(",")]
        buckets = [buckets] if isinstance(buckets, int) else buckets
        if not isinstance(buckets, list | tuple) or not all(type(frames) is int for frames in buckets):
            raise ValueError("it must be one or several whole numbers of key frames, e.g. 8 or 4,8")
        return buckets

    @field_validator("num_frames_buckets")
    @classmethod
    def _are_lengths(cls, buckets: tuple[int, ...]) -> tuple[int, ...]:
        if any(frames < 2 for frames in buckets):
            raise ValueError("each must be 2 or more key frames: between fewer there is no motion")
        return tuple(sorted(set(buckets)))

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        if self.num_frames in self.num_frames_buckets:
            raise ValueError(f"num_frames_buckets names {self.num_frames}, which num_frames is already: leave it out")
        for small, large in itertools.pairwise(self.latent_sizes):
            if large <= small or large % small:
                raise ValueError(
                    f"latent sizes must grow by whole factors from base to the last upsample stage, "
                    f"but {large} follows {small}: choose a multiple of {small}"
                )
        for name in self.diffusion_stages():
            section = self.stage_config(name)
            factor = 2 ** (len(section.model.block_out_channels) - 1)
            if section.latent_size % factor:
                raise ValueError(
                    f"{name}.latent_size {section.latent_size} does not divide by {factor}, which a U-Net of "
                    f"{len(section.model.block_out_channels)} levels needs: use a multiple of {factor}"
                )
        for one, other in itertools.pairwise(zip(self.aspect_ratios, self.frame_sizes, strict=True)):
            if one[1] == other[1]:
                raise ValueError(
                    f"aspect_ratios {one[0]} and {other[0]} are both frames of {one[1]} pixels, since sides must be "
                    f"multiples of {self.frame_multiple}: leave one of them out"
                )
        for name, section in (("autoencoder", self.autoencoder), ("reference", self.reference)):
            if section.pretrained is None and section.training is None:
                raise ValueError(f"{name} needs either `pretrained` (an off-the-shelf model) or `training`")
        if self.reference.training is not None and self.reference.model is None:
            raise ValueError("reference.training needs reference.model, the widths of the U-Net to train")
        return self

    @property
    def vae_scale_factor(self) -> int:
        """Pixels a side that one latent pixel stands for."""
        return 2 ** (len(self.autoencoder.model.block_out_channels) - 1)

    @property
    def latent_sizes(self) -> tuple[int, ...]:
        """Latent pixels a side, from the base stage to the last upsample stage."""
        return (self.base.latent_size, *(stage.latent_size for stage in self.upsample))

    @property
    def resolution(self) -> int:
        """Pixels a side of the finished video."""
        return self.latent_sizes[-1] * self.vae_scale_factor

    @property
    def frame_multiple(self) -> int:
        """Pixels that both sides of a frame must be multiples of, for the VAE and for the U-Net of every stage."""
        multiple = 1
        for name in self.diffusion_stages():
            section = self.stage_config(name)
            factor = 2 ** (len(section.model.block_out_channels) - 1)
            multiple = math.lcm(multiple, factor // math.gcd(factor, section.latent_size // self.base.latent_size))
        return multiple * self._pixels_per_base

    @property
    def frame_sizes(self) -> tuple[FrameSize, ...]:
        """Height and width in pixels of what is trained on, one for each aspect ratio, from the tallest to the widest.

        A stage's latents are as many times smaller as for the square, which `resolution` is a side of.
        """
        side, pixels = self.base.latent_size, self._pixels_per_base
        return tuple(
            fitted_size(parse_ratio(ratio), side, self.frame_multiple // pixels).scaled(pixels, 1)
            for ratio in self.aspect_ratios
        )

    @property
    def is_square(self) -> bool:
        """Whether every clip is cut to a square."""
        return self.frame_sizes == ((self.resolution, self.resolution),)

    @property
    def _pixels_per_base(self) -> int:
        return self.resolution // self.base.latent_size

    @property
    def num_output_frames(self) -> int:
        """Frames of the finished video: every key frame, and `temporal_factor - 1` between neighbours."""
        return self.temporal_factor * (self.num_frames - 1) + 1

    @property
    def clip_lengths(self) -> tuple[int, ...]:
        """Frames of the clips that are trained on, ascending."""
        return tuple(sorted(one.num_output_frames for one in self.of_each_length()))

    def of_each_length(self) -> tuple[Self, ...]:
        """Return the cascade as it is for the clips of each length: its own first, then the buckets."""
        alone = self.model_copy(update={"num_frames_buckets": ()})
        return (alone, *(alone.model_copy(update={"num_frames": frames}) for frames in self.num_frames_buckets))

    @property
    def output_fps(self) -> float:
        """Frames a second of the finished video."""
        return self.fps * self.temporal_factor

    def upsample_names(self) -> tuple[str, ...]:
        """Return "upsample" for a single super-resolution stage, "upsample_1", "upsample_2", ... for several."""
        if len(self.upsample) == 1:
            return ("upsample",)
        return tuple(f"upsample_{index}" for index in range(1, len(self.upsample) + 1))

    def diffusion_stages(self) -> tuple[str, ...]:
        """Return the names of the latent video diffusion stages."""
        return ("base", *self.upsample_names())

    def stage_names(self) -> tuple[str, ...]:
        """Return the names of the stages in the order in which a prompt passes through them."""
        return ("text", "reference", *self.diffusion_stages(), "interpolate", "decode")

    def trainable_stages(self) -> tuple[str, ...]:
        """Return the names of what this preset trains itself; without frames in between, none is interpolated."""
        return tuple(name for name in ("autoencoder", *self.stage_names()) if self._is_trained(name))

    def _is_trained(self, name: str) -> bool:
        if name == "interpolate" and self.temporal_factor == 1:
            return False
        section = self.stage_config(name)
        return getattr(section, "training", None) is not None and not getattr(section, "pretrained", None)

    def stage_config(self, name: str) -> Any:
        """Return the section of a stage (or of the autoencoder) by its name."""
        if name in self.upsample_names():
            return self.upsample[self.upsample_names().index(name)]
        if name not in CascadeConfig.model_fields or not isinstance(getattr(self, name), Section):
            raise KeyError(f"{name!r} is not a stage; the stages are {', '.join(self.stage_names())}")
        return getattr(self, name)
