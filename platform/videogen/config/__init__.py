"""Configuration of a cascade: typed sections, and presets in YAML."""

from videogen.config.aspects import FrameSize, nearest_size
from videogen.config.cascade import MAX_UPSAMPLE_STAGES, CascadeConfig, stage_kind
from videogen.config.loading import apply_overrides, config_from_dict, load_preset, preset_names
from videogen.config.schema import SamplingConfig, TrainingConfig

__all__ = [
    "MAX_UPSAMPLE_STAGES",
    "CascadeConfig",
    "FrameSize",
    "SamplingConfig",
    "TrainingConfig",
    "apply_overrides",
    "config_from_dict",
    "load_preset",
    "nearest_size",
    "preset_names",
    "stage_kind",
]
