"""Colour grading stage: finished frames to frames in better colours."""

from videogen.stages.colour_grade.config import ColourGradeConfig
from videogen.stages.definition import ObjectiveSpec, Preview, StageDefinition, video_shape

__all__ = ["DEFINITION", "ColourGradeConfig"]

DEFINITION = StageDefinition(
    section=ColourGradeConfig,
    summary="grades the colours of the finished frames",
    class_name="ColourGradeStage",
    objective=ObjectiveSpec("ColourGradeObjective", data="any"),
    preview=Preview("Graded", "frames"),
    output_shape=video_shape,
)
