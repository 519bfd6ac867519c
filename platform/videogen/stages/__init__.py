"""The stages of the cascade, one file each. Importing this package is light; its names load on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from videogen.stages.component import Component
    from videogen.stages.configuration import NOT_THE_MODEL, load_cascade_config
    from videogen.stages.registry import (
        STAGES,
        build_stages,
        components,
        load_stage,
        load_stages,
        possible_components,
        run_stages,
        stage_class,
    )
    from videogen.stages.sample import Sample, new_sample
    from videogen.stages.stage import Stage

__all__ = [
    "NOT_THE_MODEL",
    "STAGES",
    "Component",
    "Sample",
    "Stage",
    "build_stages",
    "components",
    "load_cascade_config",
    "load_stage",
    "load_stages",
    "new_sample",
    "possible_components",
    "run_stages",
    "stage_class",
]

_MODULES = {
    "Component": "component",
    "NOT_THE_MODEL": "configuration",
    "load_cascade_config": "configuration",
    "Sample": "sample",
    "new_sample": "sample",
    "Stage": "stage",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'registry')}"), name)
