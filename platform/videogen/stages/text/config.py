"""Configuration section of the text encoder."""

from typing import Self

from pydantic import Field, model_validator

from videogen.config import Section, StageSection


class TextModelConfig(Section):
    """Widths of the CLIP text transformer."""

    hidden_size: int = Field(description="channels of a token")
    num_hidden_layers: int = Field(description="transformer layers")
    num_attention_heads: int = Field(description="attention heads per layer")
    intermediate_size: int = Field(description="channels inside the feed-forward layers")
    vocab_size: int | None = Field(
        default=None, description="tokens of the vocabulary; null: the size of the preset's own small tokenizer"
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} does not divide by num_attention_heads {self.num_attention_heads}: "
                f"use a divisor of {self.hidden_size}"
            )
        return self


class TextConfig(StageSection):
    """Frozen CLIP text encoder."""

    pretrained: str | None = Field(
        default=None,
        description="Stable-Diffusion-layout folder, URI or hub id to copy it from; null: the preset's own small one",
    )
    max_length: int = Field(default=77, ge=4, description="tokens of a prompt, begin and end included")
    words: tuple[str, ...] = Field(
        default=(), description="words that are one token each in the preset's own small tokenizer"
    )
    model: TextModelConfig = Field(description="widths of the text encoder")
