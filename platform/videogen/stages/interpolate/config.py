"""Configuration section of the interpolation stage."""

from pydantic import Field

from videogen.config import Section, StageSection, TrainingConfig


class FlowModelConfig(Section):
    """Widths of the flow network and of its refinement."""

    channels: int = Field(default=64, description="channels of the flow blocks")
    scales: tuple[int, ...] = Field(
        default=(4, 2, 1), description="downsampling factor of the input of each flow block, coarse to fine"
    )
    refine_channels: int = Field(default=64, description="channels of the refinement")
    refine_blocks: int = Field(default=4, description="residual blocks of the refinement; 0: no residual blocks")


class InterpolateConfig(StageSection):
    """Flow-based temporal super-resolution of the latents (VideoGen, sec. 3.3)."""

    model: FlowModelConfig = Field(description="widths of the flow network")
    training: TrainingConfig = Field(description="training settings")
