"""Registry of stages: one line per kind, and lookup of the definition of each by name."""

import re
from functools import cache
from importlib import import_module

from videogen.stages.definition import DatasetKind, ObjectiveSpec, StageDefinition

STAGES = (
    "text",
    "autoencoder",
    "reference",
    "base",
    "upsample",
    "interpolate",
    "decode",
)
"""Kinds of stages in the order of the cascade. Each is a folder of this package and a section of the configuration."""


def stage_kind(name: str) -> str:
    """Return the kind of a stage by its name: "upsample_2" is an "upsample"."""
    return re.sub(r"_\d+$", "", name)


def stage_definition(name: str) -> StageDefinition:
    """Return the definition of a stage by its name or kind."""
    return _definition(stage_kind(name))


@cache
def _definition(kind: str) -> StageDefinition:
    if kind not in STAGES:
        raise KeyError(f"{kind!r} is not a stage; the stages are {', '.join(STAGES)}")
    definition: StageDefinition = import_module(f"videogen.stages.{kind}").DEFINITION
    return definition


def objective_spec(name: str) -> ObjectiveSpec:
    """Return how a stage is trained.

    Raises:
        KeyError: it is never trained.
    """
    spec = stage_definition(name).objective
    if spec is None:
        raise KeyError(f"{name!r} is never trained: its definition has no objective")
    return spec


def dataset_kind(name: str) -> DatasetKind:
    """Return the kind of data that a stage is trained on."""
    return objective_spec(name).data
