"""Configuration of a cascade: the sections of all registered stages, and the sizes that follow from them.

The order of the sections is that of the cascade (VideoGen, arXiv 2309.00398, sec. 3).
"""

import itertools
import math
from collections.abc import Sequence
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Self, overload

import pydantic
from pydantic import Field, field_validator, model_validator

from videogen.config import (
    SQUARE,
    DiffusionConfig,
    FrameSize,
    Section,
    StageSection,
    TrainingConfig,
    build_config,
    fitted_size,
    parse_ratio,
    read_preset,
)
from videogen.stages.definition import SectionT
from videogen.stages.registry import STAGES, stage_definition, stage_kind

if TYPE_CHECKING:
    from videogen.stages.autoencoder import AutoencoderConfig
    from videogen.stages.base import BaseConfig
    from videogen.stages.decode import DecodeConfig
    from videogen.stages.interpolate import InterpolateConfig
    from videogen.stages.reference import ReferenceConfig
    from videogen.stages.text import TextConfig
    from videogen.stages.upsample import UpsampleConfig


class _Cascade(Section):
    """One cascade from prompt to frames."""

    name: str = Field(description="name of the preset, shown in reports")
    seed: int = Field(default=0, ge=0, description="seed of initial weights, data order and training noise")
    num_frames: int = Field(ge=2, description="key frames that the base stage generates")
    fps: float = Field(gt=0, description="key frames per second")
    temporal_factor: int = Field(ge=1, description="frames per key frame after interpolation; a power of two")
    aspect_ratios: tuple[str, ...] = Field(
        default=(SQUARE,),
        description="width:height of the training clips; each clip is cropped to the nearest one",
        # Left out at its default, so that models trained before the key existed keep their identity.
        exclude_if=lambda ratios: ratios == (SQUARE,),
    )
    num_frames_buckets: tuple[int, ...] = Field(
        default=(),
        description="key frames of further training clips, beside those of num_frames; no batch mixes two lengths",
        # As with aspect_ratios.
        exclude_if=lambda buckets: not buckets,
    )
    diffusion: DiffusionConfig = Field(
        default=DiffusionConfig(), description="noise schedule that all diffusion stages share"
    )
    if TYPE_CHECKING:
        # At run time `CascadeConfig` has a field for each registered stage; these declare the built-in ones.
        text: TextConfig
        autoencoder: AutoencoderConfig
        reference: ReferenceConfig
        base: BaseConfig
        upsample: tuple[UpsampleConfig, ...]
        interpolate: InterpolateConfig
        decode: DecodeConfig

    @field_validator("temporal_factor")
    @classmethod
    def _is_power_of_two(cls, factor: int) -> int:
        if factor & (factor - 1):
            raise ValueError(f"temporal_factor {factor} must be a power of two: use 1, 2, 4 or 8")
        return factor

    @field_validator("aspect_ratios", mode="before")
    @classmethod
    def _are_texts(cls, ratios: object) -> object:
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
    def _are_several(cls, buckets: object) -> object:
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
        for name, section in self._diffusion_sections().items():
            factor = section.model.downsampling
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
        return self

    @property
    def vae_scale_factor(self) -> int:
        """Pixels a side that one latent pixel stands for."""
        factor: int = 2 ** (len(self.autoencoder.model.block_out_channels) - 1)
        return factor

    @property
    def latent_channels(self) -> int:
        """Channels of the latents."""
        return self.autoencoder.model.latent_channels

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
        for section in self._diffusion_sections().values():
            factor = section.model.downsampling
            multiple = math.lcm(multiple, factor // math.gcd(factor, section.latent_size // self.base.latent_size))
        return multiple * self._pixels_per_base

    @property
    def frame_sizes(self) -> tuple[FrameSize, ...]:
        """Height and width in pixels of training frames, one per aspect ratio, from the tallest to the widest.

        The latents of a stage are smaller by the factor of the square, whose side is `resolution`.
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
        """Return one configuration per clip length: num_frames first, then the buckets."""
        alone = self.model_copy(update={"num_frames_buckets": ()})
        return (alone, *(alone.model_copy(update={"num_frames": frames}) for frames in self.num_frames_buckets))

    @property
    def output_fps(self) -> float:
        """Frames a second of the finished video."""
        return self.fps * self.temporal_factor

    def names_of(self, kind: str) -> tuple[str, ...]:
        """Return the names of the stages of one kind: "upsample" for a single one, "upsample_1", ... for several."""
        section = getattr(self, kind)
        if not isinstance(section, tuple):
            return () if section is None else (kind,)
        return (kind,) if len(section) == 1 else tuple(f"{kind}_{number}" for number in range(1, len(section) + 1))

    def upsample_names(self) -> tuple[str, ...]:
        """Return the names of the latent super-resolution stages."""
        return self.names_of("upsample")

    def diffusion_stages(self) -> tuple[str, ...]:
        """Return the names of the latent video diffusion stages."""
        return ("base", *self.upsample_names())

    def stage_names(self) -> tuple[str, ...]:
        """Return the names of the stages in the order in which a prompt passes through them."""
        return tuple(name for name in self._names() if stage_definition(name).class_name)

    def trainable_stages(self) -> tuple[str, ...]:
        """Return the names of the stages that this cascade trains itself, in the order of the cascade."""
        return tuple(name for name in self._names() if self._is_trained(name))

    def _names(self) -> tuple[str, ...]:
        return tuple(name for kind in STAGES for name in self.names_of(kind))

    def _is_trained(self, name: str) -> bool:
        objective, section = stage_definition(name).objective, self.stage_config(name)
        if objective is None or section.is_off_the_shelf():
            return False
        return section.training_settings() is not None and objective.applies(self)

    def _diffusion_sections(self) -> "dict[str, BaseConfig]":
        return dict(zip(self.diffusion_stages(), (self.base, *self.upsample), strict=True))

    @overload
    def stage_config(self, name: str) -> StageSection: ...

    @overload
    def stage_config(self, name: str, kind: type[SectionT]) -> SectionT: ...

    def stage_config(self, name: str, kind: type[StageSection] = StageSection) -> StageSection:
        """Return the section of a stage by its name, e.g. "base" or "upsample_2".

        Args:
            name: of the stage.
            kind: type that the section must have.

        Raises:
            KeyError: there is no such stage in this cascade.
            TypeError: its section is of another type.
        """
        names = self.names_of(stage_kind(name)) if stage_kind(name) in STAGES else ()
        if name not in names:
            raise KeyError(f"{name!r} is not a stage; the stages are {', '.join(self.stage_names())}")
        section = getattr(self, stage_kind(name))
        section = section[names.index(name)] if isinstance(section, tuple) else section
        if not isinstance(section, kind):
            raise TypeError(f"the section of {name!r} is {type(section).__name__}, not {kind.__name__}")
        return section

    def training_of(self, name: str) -> TrainingConfig:
        """Return the training settings of a stage.

        Raises:
            KeyError: it has none.
        """
        training = self.stage_config(name).training_settings()
        if training is None:
            raise KeyError(f"stage {name!r} has no section `training`")
        return training


def _stage_field(kind: str) -> tuple[Any, Any]:
    """Return type and field of the section of a kind of stage."""
    definition = stage_definition(kind)
    about = (definition.section.__doc__ or "").partition("\n")[0].rstrip(".")
    if definition.max_count > 1:
        field = Field(default=(), max_length=definition.max_count, description=f"{about}; one section per stage")
        return GenericAlias(tuple, (definition.section, ...)), field
    if definition.is_optional:
        # Left out where it is not set, so that models trained before the stage existed keep their identity.
        return definition.section | None, Field(
            default=None, description=about, exclude_if=lambda section: section is None
        )
    return definition.section, Field(description=about)


if TYPE_CHECKING:
    CascadeConfig = _Cascade
else:
    CascadeConfig = pydantic.create_model(
        "CascadeConfig",
        __base__=_Cascade,
        __module__=__name__,
        __doc__=_Cascade.__doc__,
        **{kind: _stage_field(kind) for kind in STAGES},
    )


def load_preset(name: str, overrides: Sequence[str] = ()) -> CascadeConfig:
    """Return a preset by name, or the one in a YAML file, with overrides applied.

    Raises:
        UserError: unknown preset or key, or a value that does not fit; names the nearest valid one.
    """
    return build_config(CascadeConfig, read_preset(name), overrides, origin=f"preset {name!r}")


def apply_overrides(config: CascadeConfig, overrides: Sequence[str]) -> CascadeConfig:
    """Return `config` with each `a.b=c` of `overrides` set; `upsample.0.x=c` or `upsample.x=c` address its stages."""
    if not overrides:
        return config
    return build_config(CascadeConfig, config.model_dump(mode="json"), overrides, origin="the configuration")


def config_from_dict(values: dict[str, Any]) -> CascadeConfig:
    """Return the configuration that `model_dump(mode="json")` gave."""
    return build_config(
        CascadeConfig,
        values,
        (),
        origin="the model's configuration",
        renamed_remedy="run jobs/train_cascade.py again with the same options; finished stages are kept",
    )
