"""Prompt to text embeddings (frozen CLIP text encoder)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from transformers import CLIPTextModel, CLIPTokenizer

from videogen.models.text import encode_prompts
from videogen.stages.stage import Sample, Stage


class TextStage(Stage):
    """Embeds prompt and negative prompt."""

    kind: ClassVar = "text"
    consumes: ClassVar = ("prompt", "negative_prompt")
    produces: ClassVar = ("prompt_embeds", "negative_prompt_embeds")

    def __init__(self, name: str, tokenizer: Any, text_encoder: Any, device: str = "cpu") -> None:
        super().__init__(name, device)
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder.to(self.device).eval()

    @classmethod
    def from_pretrained(cls, folder: str, name: str = "text", device: str = "cpu") -> Self:
        """Load `tokenizer/` and `text_encoder/`."""
        root = Path(folder)
        tokenizer = CLIPTokenizer.from_pretrained(root / "tokenizer")
        return cls(name, tokenizer, CLIPTextModel.from_pretrained(root / "text_encoder"), device)

    def run(self, samples: Sequence[Sample]) -> list[Sample]:
        """Return `prompt_embeds` and `negative_prompt_embeds`, float32 (L, D) each."""
        prompts = encode_prompts(self.tokenizer, self.text_encoder, [sample["prompt"] for sample in samples])
        negatives = encode_prompts(
            self.tokenizer, self.text_encoder, [sample.get("negative_prompt") or "" for sample in samples]
        )
        return [
            {"prompt_embeds": prompt.cpu().numpy(), "negative_prompt_embeds": negative.cpu().numpy()}
            for prompt, negative in zip(prompts, negatives, strict=True)
        ]
