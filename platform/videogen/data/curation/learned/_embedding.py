"""What a clip looks like to CLIP, as one vector."""

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
"""Of a configuration that does not say it, which is transformers' own default."""
_TYPES = ("clip", "clip_vision_model")
_FRAMES_AT_ONCE = 16


class ClipEmbedding:
    """A CLIP image encoder (transformers, `model_type` clip or clip_vision_model).

    Args:
        model: a `CLIPModel`, of which the text half is let go, or a `CLIPVisionModelWithProjection`; on its device.
        processor: its image processor.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self._encoder, self._projection = model.vision_model, model.visual_projection
        self._device = model.device
        self._processor = processor

    @classmethod
    def from_pretrained(cls, uri: str, device: str = "cpu") -> Self:
        """Load a folder that `save_pretrained` has written, with its preprocessor_config.json.

        Raises:
            UserError: no such folder, another model, or pickled weights.
        """
        from transformers import CLIPImageProcessor, CLIPModel, CLIPVisionModelWithProjection

        # The half would load from a whole model too, but with the width of another one: it looks for it elsewhere.
        classes = dict(zip(_TYPES, (CLIPModel, CLIPVisionModelWithProjection), strict=True))
        with weights_folder(uri, _WHAT) as folder:
            model_class = classes[require_type(folder, uri, _WHAT, _TYPES)]
            model = load_model(model_class, folder, uri, _WHAT, device)
            return cls(model, load_processor(CLIPImageProcessor, folder, uri, _WHAT))

    @staticmethod
    def check(uri: str) -> int:
        """Return the width of the vectors of a model that is not loaded for it.

        Raises:
            UserError: what `from_pretrained` would say of the folder's kind; weights are not looked at.
        """
        with weights_folder(uri, _WHAT) as folder:
            require_type(folder, uri, _WHAT, _TYPES)
            require_processor(folder, uri, _WHAT)
            return int(json.loads((folder / "config.json").read_text()).get("projection_dim", _CLIP_WIDTH))

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        return int(self._projection.out_features)

    def of_frames(self, frames: np.ndarray) -> np.ndarray:
        """Return one unit vector a frame, float32 (F, width).

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
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Return the vector of a clip, the normalised mean of its frames' vectors: float16 (width,)."""
        return mean_direction(self.of_frames(frames))

    def _pixels(self, frames: np.ndarray) -> "torch.Tensor":
        prepared = self._processor(images=list(frames), return_tensors="pt", input_data_format="channels_last")
        return prepared["pixel_values"].to(self._device)


def mean_direction(vectors: np.ndarray) -> np.ndarray:
    """Return the normalised mean of unit vectors (F, D) as float16 (D,)."""
    mean = vectors.mean(axis=0)
    return (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float16)
