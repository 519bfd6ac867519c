"""Registry of stages: one line per kind, and lookup of the definition and classes of each by name.

Importing this module is light; the modules of a stage folder are imported when they are asked for, so that a worker
that runs one stage imports the libraries of no other.
"""

import re
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from videogen.stages.definition import DatasetKind, ObjectiveSpec, StageDefinition

if TYPE_CHECKING:
    from videogen.stages.cascade import CascadeConfig
    from videogen.stages.objective import Objective
    from videogen.stages.stage import Stage

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


def stage_class(name: str) -> "type[Stage]":
    """Return the class that runs a stage, with all that it imports."""
    class_name = stage_definition(name).class_name
    if class_name is None:
        raise KeyError(f"{name!r} is not run in generation: it has no stage class")
    found: type[Stage] = getattr(_module(name, "stage"), class_name)
    return found


def objective_class(name: str) -> "Callable[..., Objective]":
    """Return the class of the objective of a stage, with all that it imports."""
    found: Callable[..., Objective] = getattr(_module(name, "objective"), objective_spec(name).class_name)
    return found


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


def build_network(config: "CascadeConfig", name: str) -> Any:
    """Return the fresh network of a stage with weights of its own, on torch's default device."""
    return _module(name, "network").build_network(config, name)


def _module(name: str, module: str) -> Any:
    return import_module(f"videogen.stages.{stage_kind(name)}.{module}")
