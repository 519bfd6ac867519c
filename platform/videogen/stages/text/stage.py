"""Text stage: prompts to embeddings of the frozen CLIP text encoder."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from videogen.stages.cascade import CascadeConfig
from videogen.stages.component import Component
from videogen.stages.sample import Sample
from videogen.stages.stage import Stage
from videogen.stages.text.network import encode_prompts


class TextStage(Stage):
    """Embeds prompt and negative prompt."""

    consumes: ClassVar = ("prompt", "negative_prompt")
    produces: ClassVar = ("prompt_embeds", "negative_prompt_embeds")

    def __init__(self, name: str, parts: Mapping[str, Any], config: CascadeConfig, device: str = "cpu") -> None:
        super().__init__(name, parts, config, device)
        self.tokenizer = parts["tokenizer"]
        self.text_encoder = parts["text_encoder"].to(self.device).eval()

    @classmethod
    def components(cls, name: str) -> dict[str, Component]:  # noqa: ARG003 no part of its own name
        """Return `tokenizer` and `text_encoder`."""
        return {
            "tokenizer": Component("transformers", "CLIPTokenizer"),
            "text_encoder": Component("transformers", "CLIPTextModel"),
        }

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
