"""Interpolation stage: latents of key frames to latents at the full frame rate."""

from videogen.stages.definition import CascadeSizes, ObjectiveSpec, Preview, StageDefinition, latents_shape
from videogen.stages.interpolate.config import FlowModelConfig, InterpolateConfig

__all__ = ["DEFINITION", "FlowModelConfig", "InterpolateConfig"]


def _has_frames_to_insert(config: CascadeSizes) -> bool:
    return config.temporal_factor > 1


def _output_shape(config: CascadeSizes, name: str) -> str:  # noqa: ARG001 - as in every folder
    return latents_shape(config, config.num_output_frames, config.latent_sizes[-1])


DEFINITION = StageDefinition(
    section=InterpolateConfig,
    summary="flow between key frames",
    class_name="InterpolateStage",
    objective=ObjectiveSpec("InterpolateObjective", data="any", applies=_has_frames_to_insert),
    preview=Preview("Interpolated", "latents"),
    output_shape=_output_shape,
)
