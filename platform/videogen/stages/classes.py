"""Classes and networks of stages, imported from the stage folders when they are asked for.

A worker that runs one stage imports the libraries of no other.
"""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from videogen.stages.cascade import CascadeConfig
from videogen.stages.registry import objective_spec, stage_definition, stage_kind

if TYPE_CHECKING:
    from videogen.stages.objective import Objective
    from videogen.stages.stage import Stage


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


def build_network(config: CascadeConfig, name: str) -> Any:
    """Return the fresh network of a stage with weights of its own, on torch's default device."""
    return _module(name, "network").build_network(config, name)


def _module(name: str, module: str) -> Any:
    return import_module(f"videogen.stages.{stage_kind(name)}.{module}")
