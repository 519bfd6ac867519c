"""Definition of a stage: its configuration section, classes, training data, summary and preview.

The `__init__.py` of each stage folder holds one `DEFINITION`. It is light: the modules `stage`, `network` and
`objective` of the folder are imported by `videogen.stages.classes` when they are used.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from videogen.config import StageSection

DatasetKind = Literal["captioned", "any", "raw"]
"""Training data: "captioned" latents, "any" latents, or "raw" frames of the corpus."""

SectionT = TypeVar("SectionT", bound=StageSection)


class CascadeSizes(Protocol):
    """Sizes of a cascade that definitions of stages refer to; `CascadeConfig` has them."""

    @property
    def num_frames(self) -> int:
        """Key frames."""
        ...

    @property
    def num_output_frames(self) -> int:
        """Frames of the finished video."""
        ...

    @property
    def temporal_factor(self) -> int:
        """Frames per key frame."""
        ...

    @property
    def resolution(self) -> int:
        """Side of the finished video in pixels."""
        ...

    @property
    def latent_sizes(self) -> tuple[int, ...]:
        """Sides of the latents, from the base stage to the last upsample stage."""
        ...

    @property
    def latent_channels(self) -> int:
        """Channels of the latents."""
        ...

    def stage_config(self, name: str, section: type[SectionT], /) -> SectionT:
        """Return the section of a stage."""
        ...


@dataclass(frozen=True)
class ObjectiveSpec:
    """Training of one kind of stage."""

    class_name: str
    """Class in the folder's `objective` module."""
    data: DatasetKind
    image_model: Literal["unet", "vae"] | None = None
    """Folder of an image model in the Stable Diffusion layout whose weights the stage can start from."""
    applies: Callable[[CascadeSizes], bool] = lambda _: True
    """Whether there is anything to train in a cascade."""


@dataclass(frozen=True)
class Preview:
    """Form in which the output of a stage is shown to people."""

    title: str
    output: Literal["reference_image", "latents", "frames"]
    """Key of the stage's output that is shown: one image, latents (decoded as images), or frames."""


def _no_shape(config: CascadeSizes, name: str) -> str:  # noqa: ARG001 - see `StageDefinition.output_shape`
    return ""


@dataclass(frozen=True)
class StageDefinition:
    """One kind of stage; everything that other packages ask about it without importing its network."""

    section: type[StageSection]
    """Type of its section in the configuration."""
    summary: str
    """Its part in the cascade, in one line."""
    class_name: str | None
    """Class in the folder's `stage` module; None for a model that is trained but never run in generation."""
    objective: ObjectiveSpec | None = None
    """None for a stage that is never trained."""
    preview: Preview | None = None
    """None for a stage whose output is not shown."""
    output_shape: Callable[[CascadeSizes, str], str] = _no_shape
    """Return the size of the output of the stage with a name, in words."""
    weights: str | None = None
    """Folder of the model with the weights of the stage; None: the folder of the stage's own name."""
    max_count: int = 1
    """Stages of this kind that a cascade may have; several are named `<kind>_1`, `<kind>_2`, ..."""
    is_optional: bool = False
    """Whether a configuration may lack the section, as models do that are older than the stage."""

    def title(self, name: str) -> str:
        """Return the title of the preview of the stage `name`, with its number if there are several."""
        if self.preview is None:
            raise ValueError(f"stage {name!r} has no preview")
        number = name.rpartition("_")[2]
        return f"{self.preview.title} {number}" if self.max_count > 1 and number.isdecimal() else self.preview.title


def image_shape(config: CascadeSizes, name: str) -> str:  # noqa: ARG001 - see `StageDefinition.output_shape`
    """Return the size of one image of the finished video."""
    return f"{config.resolution} x {config.resolution} px"


def video_shape(config: CascadeSizes, name: str) -> str:  # noqa: ARG001 - see `StageDefinition.output_shape`
    """Return the size of the finished video."""
    return f"{config.num_output_frames} x {config.resolution} x {config.resolution} px"


def latents_shape(config: CascadeSizes, num_frames: int, size: int) -> str:
    """Return the size of latents of `num_frames` frames of `size` latent pixels per side."""
    return f"{num_frames} x {config.latent_channels} x {size} x {size}"
