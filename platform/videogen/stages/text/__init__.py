"""Text stage: prompts to embeddings by a frozen CLIP text encoder."""

from videogen.stages.definition import CascadeSizes, StageDefinition
from videogen.stages.text.config import TextConfig, TextModelConfig

__all__ = ["DEFINITION", "TextConfig", "TextModelConfig"]


def _output_shape(config: CascadeSizes, name: str) -> str:
    return f"{config.stage_config(name, TextConfig).max_length} tokens"


DEFINITION = StageDefinition(
    section=TextConfig,
    summary="CLIP text encoder",
    class_name="TextStage",
    output_shape=_output_shape,
    weights="text_encoder",
)
