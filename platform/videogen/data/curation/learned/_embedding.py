"""CLIP image embeddings of clips."""

import json
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from videogen.data.curation.learned._weights import (
    load_model,
    load_processor,
    require_processor,
    require_type,
    weights_folder,
)

if TYPE_CHECKING:
    import torch

_WHAT = "Embedding model"
_CLIP_WIDTH = 512
"""Default `projection_dim` of transformers, for configurations without it."""
_TYPES = ("clip", "clip_vision_model")
_FRAMES_AT_ONCE = 16


class ClipEmbedding:
    """A CLIP image encoder (transformers, `model_type` clip or clip_vision_model).

    Args:
        model: a `CLIPModel`, whose text encoder is dropped, or a `CLIPVisionModelWithProjection`; on its device.
        processor: its image processor.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self._encoder, self._projection = model.vision_model, model.visual_projection
        self._device = model.device
        self._processor = processor

    @classmethod
    def from_pretrained(cls, uri: str, device: str = "cpu") -> Self:
        """Load a folder written by `save_pretrained`, with its preprocessor_config.json.

        Raises:
            UserError: no such folder, an unsupported model type, or pickled weights.
        """
        from transformers import CLIPImageProcessor, CLIPModel, CLIPVisionModelWithProjection

        # The vision model class would also load from a whole CLIPModel, but with a wrong projection width.
        classes = dict(zip(_TYPES, (CLIPModel, CLIPVisionModelWithProjection), strict=True))
        with weights_folder(uri, _WHAT) as folder:
            model_class = classes[require_type(folder, uri, _WHAT, _TYPES)]
            model = load_model(model_class, folder, uri, _WHAT, device)
            return cls(model, load_processor(CLIPImageProcessor, folder, uri, _WHAT))

    @staticmethod
    def check(uri: str) -> int:
        """Return the width of a model's vectors without loading the weights.

        Raises:
            UserError: as `from_pretrained`, except for errors in the weights.
        """
        with weights_folder(uri, _WHAT) as folder:
            require_type(folder, uri, _WHAT, _TYPES)
            require_processor(folder, uri, _WHAT)
            return int(json.loads((folder / "config.json").read_text()).get("projection_dim", _CLIP_WIDTH))

    @property
    def width(self) -> int:
        """Length of a vector."""
        return int(self._projection.out_features)

    def of_frames(self, frames: np.ndarray) -> np.ndarray:
        """Return one unit vector per frame, float32 (F, width).

        Args:
            frames: uint8 RGB (F, h, w, 3), of any size.
        """
        import torch

        parts = []
        for start in range(0, len(frames), _FRAMES_AT_ONCE):
            pixels = self._pixels(frames[start : start + _FRAMES_AT_ONCE])
            with torch.inference_mode():
                parts.append(self._projection(self._encoder(pixels).pooler_output).float().cpu().numpy())
        vectors = np.concatenate(parts)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Return the embedding of a clip, float16 (width,): the normalised mean of its frames' vectors."""
        return mean_direction(self.of_frames(frames))

    def _pixels(self, frames: np.ndarray) -> "torch.Tensor":
        prepared = self._processor(images=list(frames), return_tensors="pt", input_data_format="channels_last")
        pixels: torch.Tensor = prepared["pixel_values"].to(self._device)
        return pixels


def mean_direction(vectors: np.ndarray) -> np.ndarray:
    """Return the normalised mean of unit vectors (F, D) as float16 (D,)."""
    mean: np.ndarray = vectors.mean(axis=0)
    return (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float16)
