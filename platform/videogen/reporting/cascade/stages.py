"""Stage descriptions for the cascade report: summary, output shape, gallery title, number of parameters."""

import inspect
import math
from pathlib import Path
from typing import Any

from videogen.config import CascadeConfig
from videogen.stages import stage_class

_SUMMARIES = {
    "text": "CLIP text encoder",
    "reference": "draws one image",
    "base": "sets it in motion",
    "upsample": "latent super-resolution",
    "interpolate": "flow between key frames",
    "decode": "temporal decoder",
}
_TITLES = {"reference": "Reference image", "base": "Low-res", "interpolate": "Interpolated", "decode": "Decoded"}


def describe_stages(config: CascadeConfig, model_folder: Path) -> list[dict[str, Any]]:
    """Return the cascade's stages in order, as the head of the page shows them."""
    shapes = _shapes(config)
    return [
        {
            "name": name,
            "summary": _summary(name),
            "shape": shapes.get(name, ""),
            "has_preview": name != "text",
            "parameters": count_parameters(model_folder / ("text_encoder" if name == "text" else name)),
        }
        for name in config.stage_names()
    ]


def gallery_columns(config: CascadeConfig) -> list[dict[str, str]]:
    """Return the gallery's columns: every stage with a visible output."""
    titles = _TITLES | {name: f"Up{name[2:].replace('_', ' ')}d" for name in config.upsample_names()}
    titles |= {config.stage_names()[-1]: "Final"}
    shapes = _shapes(config)
    return [
        {
            "key": name,
            "title": titles.get(name, name.replace("_", " ").capitalize()),
            "shape": shapes.get(name, ""),
        }
        for name in config.stage_names()
        if name != "text"
    ]


def _summary(name: str) -> str:
    """Return one line about a stage; of a new stage, the first line of its docstring."""
    kind = stage_class(name).kind
    return _SUMMARIES.get(kind) or (inspect.getdoc(stage_class(name)) or "").partition("\n")[0].rstrip(".")


def _shapes(config: CascadeConfig) -> dict[str, str]:
    """Return the output shape of each known stage as text."""
    side, channels = config.resolution, config.autoencoder.model.latent_channels
    sizes = dict(zip(config.diffusion_stages(), config.latent_sizes, strict=True))
    shapes = {"text": f"{config.text.max_length} tokens", "reference": f"{side} x {side} px"}
    shapes |= {name: f"{config.num_frames} x {channels} x {size} x {size}" for name, size in sizes.items()}
    last = config.latent_sizes[-1]
    shapes["interpolate"] = f"{config.num_output_frames} x {channels} x {last} x {last}"
    shapes |= dict.fromkeys(("decode", config.stage_names()[-1]), f"{config.num_output_frames} x {side} x {side} px")
    return shapes


def count_parameters(folder: Path) -> int:
    """Return the number of parameters of a component (of a pipeline: its U-Net), from its safetensors headers."""
    from safetensors import safe_open

    files = list(folder.glob("*.safetensors")) or list((folder / "unet").glob("*.safetensors"))
    total = 0
    for file in files:
        with safe_open(file, "np") as opened:
            total += sum(math.prod(opened.get_slice(key).get_shape()) for key in opened.keys())  # noqa: SIM118
    return total
