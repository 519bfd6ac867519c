"""Image VAE of a preset's widths, and the frozen one of a model folder."""

from pathlib import Path

from diffusers import AutoencoderKL

from videogen.errors import UserError
from videogen.stages.cascade import CascadeConfig


def build_network(config: CascadeConfig, name: str = "autoencoder") -> AutoencoderKL:  # noqa: ARG001 - as in every folder
    """Return a fresh image VAE of a preset's widths."""
    model = config.autoencoder.model
    levels = len(model.block_out_channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=tuple(model.block_out_channels),
        layers_per_block=model.layers_per_block,
        latent_channels=model.latent_channels,
        norm_num_groups=model.norm_num_groups,
        sample_size=config.resolution,
    )


def load_autoencoder(model_folder: str) -> AutoencoderKL:
    """Return the frozen image VAE of a local model folder.

    Raises:
        UserError: it is not there yet.
    """
    folder = Path(model_folder) / "autoencoder"
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no autoencoder: train it first with --stages autoencoder.")
    return AutoencoderKL.from_pretrained(folder).eval().requires_grad_(False)
