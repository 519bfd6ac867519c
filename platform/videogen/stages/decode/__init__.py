"""Decoding stage: latents to frames, by the image decoder with temporal layers."""

from videogen.stages.decode.config import DecodeConfig
from videogen.stages.definition import ObjectiveSpec, Preview, StageDefinition, video_shape

__all__ = ["DEFINITION", "DecodeConfig"]

DEFINITION = StageDefinition(
    section=DecodeConfig,
    summary="temporal decoder",
    class_name="DecodeStage",
    objective=ObjectiveSpec("DecodeObjective", data="any"),
    preview=Preview("Decoded", "frames"),
    output_shape=video_shape,
)
