"""Aesthetic score: a linear or MLP head on CLIP embeddings."""

import re
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from videogen.data.curation.learned._embedding import ClipEmbedding
from videogen.data.curation.learned._weights import weights_folder
from videogen.errors import UserError

HEAD_NAME = "head.safetensors"
"""File name of the head's layers."""

_WHAT = "Aesthetic head"
_ACTIVATIONS = ("none", "relu")


class AestheticScore:
    """Linear layers applied to the CLIP embedding of each frame, averaged over frames.

    LAION's aesthetic predictors, linear and MLP, have this form and a scale of about 1 to 10.

    Args:
        embedding: the CLIP model that the head was trained on.
        layers: weight (out, in) and bias (out,) of each layer, float32; the last has one output.
        activation: "relu" or "none" between layers; LAION's MLP has none.
    """

    name: ClassVar[str] = "aesthetic"
    unit: ClassVar[str] = "scale of the head"
    description: ClassVar[str] = "how much people would like the pictures, as a head on CLIP predicts; high is better"

    def __init__(
        self, embedding: ClipEmbedding, layers: list[tuple[np.ndarray, np.ndarray]], activation: str = "none"
    ) -> None:
        self.embedding, self._layers, self._activation = embedding, layers, activation

    @classmethod
    def from_pretrained(cls, uri: str, embedding: ClipEmbedding | None = None, device: str = "cpu") -> Self:
        """Load a head and, unless `embedding` is given, the CLIP model from the same folder.

        `head.safetensors` contains tensors `<layer>.weight` and `<layer>.bias`, applied in the order of the numbers in
        their names; for ReLU between layers, its metadata contain `activation: relu`.

        Raises:
            UserError: no such folder or file, or layers that do not fit each other or the embedding.
        """
        with weights_folder(uri, _WHAT) as folder:
            embedding = embedding or ClipEmbedding.from_pretrained(uri, device)
            layers, activation = _read_head(folder / HEAD_NAME, uri)
        _require_fitting(layers, embedding.width, uri)
        return cls(embedding, layers, activation)

    @staticmethod
    def check(uri: str, width: int) -> None:
        """Check that a head fits vectors of this width.

        Raises:
            UserError: as `from_pretrained`.
        """
        with weights_folder(uri, _WHAT) as folder:
            layers, _ = _read_head(folder / HEAD_NAME, uri)
        _require_fitting(layers, width, uri)

    def of_vectors(self, vectors: np.ndarray) -> float:
        """Return the score of the unit vectors of a clip's frames (`ClipEmbedding.of_frames`), float32 (F, width)."""
        values = vectors.astype(np.float32)
        for number, (weight, bias) in enumerate(self._layers):
            if number and self._activation == "relu":
                values = np.maximum(values, 0)
            values = values @ weight.T + bias
        return float(values.mean())

    def __call__(self, frames: np.ndarray) -> float:
        """Return the score of a clip's frames, uint8 RGB (F, h, w, 3)."""
        return self.of_vectors(self.embedding.of_frames(frames))


def _require_fitting(layers: list[tuple[np.ndarray, np.ndarray]], width: int, uri: str) -> None:
    widths = [width, *(len(weight) for weight, _ in layers)]
    for (weight, bias), expected in zip(layers, widths, strict=False):
        if weight.shape[1] != expected or bias.shape != weight.shape[:1]:
            raise UserError(
                f"{_WHAT} {uri!r} has a layer of shape {weight.shape} where {expected} numbers are expected: "
                f"give the head of this CLIP model."
            )
    if widths[-1] != 1:
        raise UserError(f"{_WHAT} {uri!r} gives {widths[-1]} numbers: one is expected.")


def _read_head(path: Path, uri: str) -> tuple[list[tuple[np.ndarray, np.ndarray]], str]:
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise UserError(f"{_WHAT} {uri!r} has no {HEAD_NAME}: put the head's layers there as safetensors.")
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name).float().numpy() for name in file.keys()}  # noqa: SIM118 - no dict
            activation = (file.metadata() or {}).get("activation", "none")
    except SafetensorError as error:
        raise UserError(f"{_WHAT} {uri!r}: {HEAD_NAME} is not a safetensors file ({error}).") from error
    if activation not in _ACTIVATIONS:
        raise UserError(
            f"{_WHAT} {uri!r} names the activation {activation!r}: {' or '.join(_ACTIVATIONS)} is expected."
        )
    weights = [name for name, tensor in tensors.items() if name.endswith("weight") and tensor.ndim == 2]
    weights.sort(key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
    if not weights:
        raise UserError(f"{_WHAT} {uri!r} has no layer in {HEAD_NAME}: tensors named `<layer>.weight` are expected.")
    layers = []
    for name in weights:
        bias = tensors.get(f"{name.removesuffix('weight')}bias", np.zeros(len(tensors[name]), np.float32))
        layers.append((tensors[name], bias))
    return layers, activation
