"""Component of a model folder: the class that loads it, imported on use."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from videogen.models.pretrained import load_component


@dataclass(frozen=True)
class Component:
    """One sub-folder of a model in diffusers layout. Its class is imported when it is loaded."""

    package: str
    """Module of the class, as `model_index.json` names it; for one of diffusers' pipelines, the pipeline's folder."""
    class_name: str
    module: str | None = None
    """Module to import the class from, where `package` is not a module."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of its `from_pretrained`."""

    def load(self, folder: str, name: str) -> Any:
        """Return the component in the sub-folder `name` of a model."""
        kind = getattr(import_module(self.module or self.package), self.class_name)
        return load_component(kind, folder, name, **self.options)
