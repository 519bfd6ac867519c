"""Trained model with other sampling settings, e.g. fewer steps: `--set base.sampling.num_inference_steps=8`."""

import contextlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from videogen import storage
from videogen.errors import UserError
from videogen.stages import NOT_THE_MODEL, CascadeConfig, apply_overrides, load_cascade_config

_INDEX = "model_index.json"
_FREE = re.compile(
    r"(\w+\.)*sampling\.\w+|upsample\.\d+\.low_res_noise_at_sampling|fps|temporal_factor|"
    r"decode\.(chunk_frames|overlap_frames|tile_size|tile_overlap)"
)
"""What may change after training; the rest is in the weights."""


def read_config(model: str, overrides: Sequence[str] = ()) -> CascadeConfig:
    """Return a model folder's configuration with sampling settings replaced.

    Raises:
        UserError: not a model, an unknown key, or one that only training could change.
    """
    trained = load_cascade_config(model)
    config = apply_overrides(trained, overrides)
    before, after = (_flat(one.model_dump(mode="json")) for one in (trained, config))
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key) and not _FREE.fullmatch(key):
            trained_with = repr(before[key]) if key in before else "the default"
            raise UserError(
                f"{key} is part of what model {model!r} was trained with ({trained_with}): leave it, or train "
                f"another model; sampling settings, e.g. base.sampling.num_inference_steps, can be set."
            )
    if config.temporal_factor > trained.temporal_factor:
        # At a smaller factor the times between key frames are a subset of those trained on; at a larger one they are
        # new to the network.
        raise UserError(
            f"temporal_factor {config.temporal_factor} is more than model {model!r} was trained for: use at most "
            f"{trained.temporal_factor}, or train the interpolate stage with the larger one."
        )
    return config


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted key."""
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        items = list(enumerate(value))
    else:
        return {prefix: value}
    return {k: v for key, inner in items for k, v in _flat(inner, f"{prefix}.{key}" if prefix else str(key)).items()}


@contextlib.contextmanager
def model_folder(model: str, config: CascadeConfig) -> Iterator[str]:
    """Yield a local folder of the model whose index holds `config`; its components are linked, not copied."""
    with storage.local_copy(model, exclude=NOT_THE_MODEL) as folder:
        index = json.loads((folder / _INDEX).read_text())
        values = config.model_dump(mode="json")
        if index["cascade"] == values:
            yield str(folder)
            return
        with tempfile.TemporaryDirectory(prefix="videogen-") as temporary:
            for item in folder.iterdir():
                if item.name != _INDEX:
                    (Path(temporary) / item.name).symlink_to(item)
            (Path(temporary) / _INDEX).write_text(json.dumps({**index, "cascade": values}))
            yield temporary
