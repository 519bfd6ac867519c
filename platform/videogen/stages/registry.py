"""The cascade as a list of stages: the one definition that every way of generating is built from."""

from collections.abc import Sequence

import numpy as np

from videogen.config import CascadeConfig
from videogen.errors import UserError
from videogen.stages.decode import DecodeStage
from videogen.stages.interpolate import InterpolateStage
from videogen.stages.reference import ReferenceStage
from videogen.stages.stage import Sample, Stage
from videogen.stages.text import TextStage
from videogen.stages.video_diffusion import BaseStage, UpsampleStage

STAGES: tuple[type[Stage], ...] = (
    TextStage,
    ReferenceStage,
    BaseStage,
    UpsampleStage,
    InterpolateStage,
    DecodeStage,
)
_LONGEST_PROMPT = 4000


def stage_class(name: str) -> type[Stage]:
    """Return the class of a stage by its name; "upsample_2" is an `UpsampleStage`."""
    kind, _, number = name.partition("_")
    for candidate in STAGES:
        if candidate.kind == kind and (not number or number.isdigit()):
            return candidate
    raise KeyError(f"{name!r} is not a stage; there are {', '.join(stage.kind for stage in STAGES)}")


def load_stage(name: str, folder: str, device: str = "cpu") -> Stage:
    """Return the stage `name` of a local model folder, with its weights on `device`."""
    return stage_class(name).from_pretrained(folder, name, device)


def load_stages(config: CascadeConfig, folder: str, device: str = "cpu") -> list[Stage]:
    """Return all stages in order."""
    return [load_stage(name, folder, device) for name in config.stage_names()]


def run_stages(stages: Sequence[Stage], samples: Sequence[Sample]) -> list[Sample]:
    """Pass samples through stages; each result holds the sample's own keys and all that the stages added."""
    results = [dict(sample) for sample in samples]
    for stage in stages:
        for result, added in zip(results, stage(results), strict=True):
            result.update(added)
    return results


def new_sample(
    prompt: str, seed: int = 0, negative_prompt: str | None = None, reference_image: np.ndarray | None = None
) -> Sample:
    """Return what the first stage consumes.

    Args:
        prompt: what to show.
        seed: 0 <= seed < 2**63.
        negative_prompt: what to avoid.
        reference_image: uint8 (H, W, 3) to start from instead of a drawn one.

    Raises:
        UserError: a value is empty or out of range.
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise UserError(f"The prompt {prompt!r} is empty: say what the video shows, e.g. 'a red circle moving left'.")
    if len(prompt) > _LONGEST_PROMPT:
        raise UserError(f"The prompt has {len(prompt)} characters, but at most {_LONGEST_PROMPT} are read: shorten it.")
    if not 0 <= int(seed) < 2**63:
        raise UserError(f"Seed {seed} is out of range: use a whole number from 0 to 2**63 - 1.")
    if reference_image is not None:
        image = np.asarray(reference_image)
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
            raise UserError(
                f"The reference image is {image.dtype} {image.shape}, but uint8 (height, width, 3) is needed: "
                f"convert it to RGB."
            )
    return {
        "prompt": prompt,
        "negative_prompt": negative_prompt or "",
        "seed": int(seed),
        "reference_image": reference_image,
    }
