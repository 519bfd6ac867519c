"""One objective a file; `build_objective` pairs each trainable stage with its own."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from videogen.config import CascadeConfig
    from videogen.training.objective import Objective

__all__ = ["build_objective"]


def build_objective(
    stage: str, config: "CascadeConfig", model_folder: str, init_from: str | None = None
) -> "Objective":
    """Return the objective of a trainable stage, its weights drawn from the configuration's seed.

    Args:
        stage: "autoencoder" or a name of `config.trainable_stages()`.
        config: the cascade.
        model_folder: local folder with the frozen components that the stage needs (all but the autoencoder do).
        init_from: Stable-Diffusion-layout folder, URI or hub id whose weights the model starts from.
    """
    import torch

    from videogen.training.objectives.autoencoder import AutoencoderObjective
    from videogen.training.objectives.decode import DecodeObjective
    from videogen.training.objectives.initial_weights import load_initial_weights
    from videogen.training.objectives.interpolate import InterpolateObjective
    from videogen.training.objectives.reference import ReferenceObjective
    from videogen.training.objectives.video_diffusion import VideoDiffusionObjective

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        objective: Objective
        if stage == "autoencoder":
            objective = AutoencoderObjective(config)
        elif stage == "reference":
            objective = ReferenceObjective(config, model_folder)
        elif stage == "interpolate":
            objective = InterpolateObjective(config, model_folder)
        elif stage == "decode":
            objective = DecodeObjective(config, model_folder)
        else:
            objective = VideoDiffusionObjective(config, stage, model_folder)
    if init_from:
        load_initial_weights(objective, init_from)
    return objective
