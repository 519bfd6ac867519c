"""Serialized samples between stages: one binary column with the arrays that later stages need.

Arrays of one batch differ in shape from stage to stage and are missing in failed rows, which a typed tensor column
forbids; safetensors bytes are compact, exact and readable by anyone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_KEPT = "kept/"
"""Key prefix of intermediate results, which are saved with the video; see `keep`."""


def pack(sample: Mapping[str, Any], names: set[str]) -> bytes:
    """Serialize the named and the kept arrays of a sample; text and numbers have their own columns."""
    from safetensors.numpy import save

    chosen = sorted(key for key in sample if key in names or key.startswith(_KEPT))
    return save({key: np.ascontiguousarray(sample[key]) for key in chosen if isinstance(sample[key], np.ndarray)})


def unpack(data: bytes) -> dict[str, Any]:
    """Deserialize a payload of `pack`; a reference image that was not given is None."""
    from safetensors.numpy import load

    return {"reference_image": None, **load(data)}


def keep(sample: dict[str, Any], stage: str, produced: Mapping[str, Any]) -> None:
    """Keep the output of a stage as an intermediate result, saved with the video."""
    sample |= {f"{_KEPT}{stage}.{key}": value for key, value in produced.items()}


def kept(sample: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the kept intermediate results by `<stage>.<key>`."""
    return {key.removeprefix(_KEPT): value for key, value in sample.items() if key.startswith(_KEPT)}


def needed_after(consumed: Sequence[Sequence[str]]) -> list[set[str]]:
    """Return for each stage the keys that any later stage reads."""
    return [set().union(*consumed[index + 1 :]) for index in range(len(consumed))]
