"""Configuration section of the colour grading stage."""

from pydantic import Field

from videogen.config import StageSection, TrainingConfig


class ColourGradeConfig(StageSection):
    """Colours of the finished frames."""

    strength: float = Field(default=1.0, ge=0, le=1, description="share of the graded colours in the result")
    training: TrainingConfig = Field(description="training settings")
