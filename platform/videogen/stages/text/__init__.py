"""Text stage: prompts to embeddings by a frozen CLIP text encoder."""

from typing import TYPE_CHECKING

from videogen.stages.definition import StageDefinition
from videogen.stages.text.config import TextConfig, TextModelConfig

if TYPE_CHECKING:
    from videogen.stages.cascade import CascadeConfig

__all__ = ["DEFINITION", "TextConfig", "TextModelConfig"]


def _output_shape(config: "CascadeConfig", name: str) -> str:  # noqa: ARG001 - as in every folder
    return f"{config.text.max_length} tokens"


DEFINITION = StageDefinition(
    section=TextConfig,
    summary="CLIP text encoder",
    class_name="TextStage",
    output_shape=_output_shape,
    weights="text_encoder",
)
