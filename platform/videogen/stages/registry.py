"""The cascade as a list of stages: the one definition that every way of generating is built from."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from videogen.config import CascadeConfig, stage_kind
from videogen.stages.component import Component
from videogen.stages.stage import Sample, Stage

# Modules, not classes: a worker that runs one stage imports no other stage's libraries.
STAGES: dict[str, str] = {
    "text": "videogen.stages.text:TextStage",
    "reference": "videogen.stages.reference:ReferenceStage",
    "base": "videogen.stages.video_diffusion:BaseStage",
    "upsample": "videogen.stages.video_diffusion:UpsampleStage",
    "interpolate": "videogen.stages.interpolate:InterpolateStage",
    "decode": "videogen.stages.decode:DecodeStage",
}
"""Kind of stage -> where its class is, in the order of the cascade."""


def stage_class(name: str) -> type[Stage]:
    """Return the class of a stage by its name; "upsample_2" is an `UpsampleStage`."""
    kind = stage_kind(name)
    if kind not in STAGES:
        raise KeyError(f"{name!r} is not a stage; there are {', '.join(STAGES)}")
    module, _, class_name = STAGES[kind].partition(":")
    found: type[Stage] = getattr(import_module(module), class_name)
    return found


def components(config: CascadeConfig) -> dict[str, Component]:
    """Return all parts of a model folder, in the order in which the stages need them."""
    found: dict[str, Component] = {}
    for name in config.stage_names():
        found |= stage_class(name).components(name)
    return found


def possible_components() -> tuple[str, ...]:
    """Return the names of the parts that any cascade may have."""
    found: dict[str, None] = {}
    for kind in STAGES:
        numbers = range(1, stage_class(kind).most + 1)
        names = (kind, *(f"{kind}_{number}" for number in numbers if len(numbers) > 1))
        found |= dict.fromkeys(part for name in names for part in stage_class(name).components(name))
    return tuple(found)


def build_stages(config: CascadeConfig, parts: Mapping[str, Any], device: str = "cpu") -> list[Stage]:
    """Return all stages in order, around parts that are loaded already; `parts` holds what `components` names."""
    return [stage_class(name)(name, parts, config, device) for name in config.stage_names()]


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
