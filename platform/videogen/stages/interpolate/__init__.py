"""Interpolation stage: latents of key frames to latents at the full frame rate."""

from typing import TYPE_CHECKING

from videogen.stages.definition import ObjectiveSpec, Preview, StageDefinition, latents_shape
from videogen.stages.interpolate.config import FlowModelConfig, InterpolateConfig

if TYPE_CHECKING:
    from videogen.stages.cascade import CascadeConfig

__all__ = ["DEFINITION", "FlowModelConfig", "InterpolateConfig"]


def _has_frames_to_insert(config: "CascadeConfig") -> bool:
    return config.temporal_factor > 1


def _output_shape(config: "CascadeConfig", name: str) -> str:  # noqa: ARG001 - as in every folder
    return latents_shape(config, config.num_output_frames, config.latent_sizes[-1])


DEFINITION = StageDefinition(
    section=InterpolateConfig,
    summary="flow between key frames",
    class_name="InterpolateStage",
    objective=ObjectiveSpec("InterpolateObjective", data="any", applies=_has_frames_to_insert),
    preview=Preview("Interpolated", "latents"),
    output_shape=_output_shape,
)
