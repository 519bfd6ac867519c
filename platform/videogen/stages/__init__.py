"""Stages of the cascade, one folder each, with their registry and the configuration that they form together.

Importing this package is light: names that need torch load on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from videogen.stages.cascade import CascadeConfig, apply_overrides, config_from_dict, load_preset
from videogen.stages.classes import build_network, objective_class, stage_class
from videogen.stages.component import Component
from videogen.stages.configuration import NOT_THE_MODEL, load_cascade_config
from videogen.stages.definition import DatasetKind, ObjectiveSpec, Preview, StageDefinition
from videogen.stages.registry import STAGES, dataset_kind, objective_spec, stage_definition, stage_kind
from videogen.stages.sample import Sample, new_sample

if TYPE_CHECKING:
    from videogen.stages.assembly import (
        build_objective,
        build_stages,
        components,
        count_parameters,
        load_stage,
        load_stages,
        possible_components,
        run_stages,
    )
    from videogen.stages.objective import Objective
    from videogen.stages.stage import Stage

__all__ = [
    "NOT_THE_MODEL",
    "STAGES",
    "CascadeConfig",
    "Component",
    "DatasetKind",
    "Objective",
    "ObjectiveSpec",
    "Preview",
    "Sample",
    "Stage",
    "StageDefinition",
    "apply_overrides",
    "build_network",
    "build_objective",
    "build_stages",
    "components",
    "config_from_dict",
    "count_parameters",
    "dataset_kind",
    "load_cascade_config",
    "load_preset",
    "load_stage",
    "load_stages",
    "new_sample",
    "objective_class",
    "objective_spec",
    "possible_components",
    "run_stages",
    "stage_class",
    "stage_definition",
    "stage_kind",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = {"Objective": "objective", "Stage": "stage"}.get(name, "assembly")
    return getattr(import_module(f"{__name__}.{module}"), name)
