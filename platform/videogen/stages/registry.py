"""The cascade as a list of stages: the one definition that every way of generating is built from."""

from collections.abc import Sequence
from importlib import import_module

from videogen.config import CascadeConfig
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
    kind, _, number = name.partition("_")
    if kind not in STAGES or (number and not number.isdigit()):
        raise KeyError(f"{name!r} is not a stage; there are {', '.join(STAGES)}")
    module, _, class_name = STAGES[kind].partition(":")
    found: type[Stage] = getattr(import_module(module), class_name)
    return found


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
