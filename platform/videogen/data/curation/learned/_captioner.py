"""Caption generation by image-to-text models."""

from typing import Any, Self

import numpy as np

from videogen.data.curation.learned._weights import (
    load_model,
    load_processor,
    require_processor,
    require_type,
    weights_folder,
)

_WHAT = "Captioner"
_TYPES = ("blip", "git")
"""Model types that describe an image without a text prompt."""


class Captioner:
    """A transformers image-to-text model (`model_type` blip or git).

    Args:
        model: the model, on its device.
        processor: its image processor and tokenizer.
        max_tokens: maximum length of a caption in tokens.
    """

    def __init__(self, model: Any, processor: Any, max_tokens: int = 40) -> None:
        self._model, self._processor, self._max_tokens = model, processor, max_tokens

    @classmethod
    def from_pretrained(cls, uri: str, device: str = "cpu", max_tokens: int = 40) -> Self:
        """Load a folder written by `save_pretrained`, with its image processor and tokenizer.

        Raises:
            UserError: no such folder, an unsupported model type, or pickled weights.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor

        with weights_folder(uri, _WHAT) as folder:
            require_type(folder, uri, _WHAT, _TYPES)
            model = load_model(AutoModelForImageTextToText, folder, uri, _WHAT, device)
            return cls(model, load_processor(AutoProcessor, folder, uri, _WHAT), max_tokens)

    @staticmethod
    def check(uri: str) -> None:
        """Check a model folder without loading the weights.

        Raises:
            UserError: as `from_pretrained`, except for errors in the weights.
        """
        with weights_folder(uri, _WHAT) as folder:
            require_type(folder, uri, _WHAT, _TYPES)
            require_processor(folder, uri, _WHAT)

    def __call__(self, frames: np.ndarray) -> str:
        """Return a description of a clip's middle frame; "" if the model returns none.

        Decoding is greedy, so the result is deterministic.

        Args:
            frames: uint8 RGB (F, h, w, 3).
        """
        import torch

        inputs = self._processor(images=[frames[len(frames) // 2]], return_tensors="pt").to(self._model.device)
        with torch.inference_mode():
            tokens = self._model.generate(
                pixel_values=inputs["pixel_values"], max_new_tokens=self._max_tokens, do_sample=False, num_beams=1
            )
        return " ".join(self._processor.batch_decode(tokens, skip_special_tokens=True)[0].split())
