"""Generic configuration: sections that several stages share, YAML presets, overrides, aspect ratios.

`videogen.stages.CascadeConfig` assembles the configuration of a cascade from the sections of its stages.
"""

from videogen.config.aspects import SQUARE, FrameSize, fitted_size, nearest_size, parse_ratio
from videogen.config.loading import build_config, preset_names, read_preset
from videogen.config.sections import (
    DiffusionConfig,
    SamplingConfig,
    Section,
    StageSection,
    TimestepConfig,
    TrainingConfig,
    UNetConfig,
)

__all__ = [
    "SQUARE",
    "DiffusionConfig",
    "FrameSize",
    "SamplingConfig",
    "Section",
    "StageSection",
    "TimestepConfig",
    "TrainingConfig",
    "UNetConfig",
    "build_config",
    "fitted_size",
    "nearest_size",
    "parse_ratio",
    "preset_names",
    "read_preset",
]
