"""Reference stage: a prompt to one image, by any text-to-image model in the Stable Diffusion layout."""

from videogen.stages.definition import ObjectiveSpec, Preview, StageDefinition, image_shape
from videogen.stages.reference.config import ReferenceConfig

__all__ = ["DEFINITION", "ReferenceConfig"]

DEFINITION = StageDefinition(
    section=ReferenceConfig,
    summary="draws one image",
    class_name="ReferenceStage",
    objective=ObjectiveSpec("ReferenceObjective", data="captioned", image_model="unet"),
    preview=Preview("Reference image", "reference_image"),
    output_shape=image_shape,
)
