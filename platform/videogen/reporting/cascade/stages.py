"""Stage descriptions for the cascade report: summary, output shape, gallery title, number of parameters."""

import math
from pathlib import Path
from typing import Any

from videogen.stages import CascadeConfig, stage_definition


def describe_stages(config: CascadeConfig, model_folder: Path) -> list[dict[str, Any]]:
    """Return the cascade's stages in order, as the head of the page shows them."""
    described = []
    for name in config.stage_names():
        definition = stage_definition(name)
        described.append(
            {
                "name": name,
                "summary": definition.summary,
                "shape": definition.output_shape(config, name),
                "has_preview": definition.preview is not None,
                "parameters": count_parameters(model_folder / (definition.weights or name)),
            }
        )
    return described


def gallery_columns(config: CascadeConfig) -> list[dict[str, str]]:
    """Return the gallery's columns: every stage with a preview."""
    last = config.stage_names()[-1]
    return [
        {
            "key": name,
            "title": "Final" if name == last else stage_definition(name).title(name),
            "shape": stage_definition(name).output_shape(config, name),
        }
        for name in config.stage_names()
        if stage_definition(name).preview
    ]


def count_parameters(folder: Path) -> int:
    """Return the number of parameters of a component (of a pipeline: its U-Net), from its safetensors headers."""
    from safetensors import safe_open

    files = list(folder.glob("*.safetensors")) or list((folder / "unet").glob("*.safetensors"))
    total = 0
    for file in files:
        with safe_open(file, "np") as opened:
            total += sum(math.prod(opened.get_slice(key).get_shape()) for key in opened.keys())  # noqa: SIM118
    return total
