"""`--init-from`: start a stage from a Stable-Diffusion-layout folder (unet/, vae/, ...)."""

from diffusers import AutoencoderKL, UNet2DConditionModel

from videogen.errors import UserError
from videogen.models.autoencoder import VideoAutoencoder
from videogen.models.pretrained import load_component
from videogen.models.unet import VideoUNet
from videogen.training.objective import Objective


def load_initial_weights(objective: Objective, source: str) -> None:
    """Copy the image model's weights into the objective's model.

    Video U-Nets take `unet/` (inflated), the reference model takes `unet/` as it is, autoencoder and video decoder
    take `vae/`. The interpolation stage has no image model to start from and keeps its fresh weights.

    Raises:
        UserError: the folder has no such part, or its layout or widths do not fit the preset.
    """
    model = objective.model
    try:
        if isinstance(model, VideoUNet):
            model.load_image_model(load_component(UNet2DConditionModel, source, "unet"))
        elif isinstance(model, UNet2DConditionModel):
            model.load_state_dict(load_component(UNet2DConditionModel, source, "unet").state_dict())
        elif isinstance(model, VideoAutoencoder):
            image_decoder = VideoAutoencoder.from_image_autoencoder(load_component(AutoencoderKL, source, "vae"))
            model.load_state_dict(image_decoder.state_dict())
        elif isinstance(model, AutoencoderKL):
            model.load_state_dict(load_component(AutoencoderKL, source, "vae").state_dict())
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"--init-from {source!r} does not fit stage {objective.stage!r} of this preset ({reason}): "
            f"use a model of the same layout and widths, or set {objective.stage}.model to the model's."
        ) from error
