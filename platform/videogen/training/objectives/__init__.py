"""One objective a file; `OBJECTIVES` pairs each kind of trainable stage with its own and with its data.

Importing this package is light: what a stage trains on is asked before torch is needed.
"""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from videogen.config import stage_kind
from videogen.errors import UserError

if TYPE_CHECKING:
    from videogen.config import CascadeConfig
    from videogen.training.objective import DatasetKind, Objective

__all__ = [
    "OBJECTIVES",
    "Pairing",
    "build_objective",
    "dataset_kind",
    "objective_class",
    "require_can_start_from_image_model",
]


class Pairing(NamedTuple):
    """How one kind of stage is trained."""

    objective: str
    """Where its class is, as "module:class"."""
    dataset_kind: "DatasetKind"
    """"captioned": captioned latents; "any": all latents; "raw": frames of the corpus itself."""


OBJECTIVES: dict[str, Pairing] = {
    "autoencoder": Pairing("videogen.training.objectives.autoencoder:AutoencoderObjective", "raw"),
    "reference": Pairing("videogen.training.objectives.reference:ReferenceObjective", "captioned"),
    "base": Pairing("videogen.training.objectives.video_diffusion:VideoDiffusionObjective", "captioned"),
    "upsample": Pairing("videogen.training.objectives.video_diffusion:VideoDiffusionObjective", "captioned"),
    "interpolate": Pairing("videogen.training.objectives.interpolate:InterpolateObjective", "any"),
    "decode": Pairing("videogen.training.objectives.decode:DecodeObjective", "any"),
}
"""Kind of stage -> how it is trained."""


def dataset_kind(stage: str) -> "DatasetKind":
    """Return what a stage trains on, without building its objective."""
    return _pairing(stage).dataset_kind


def objective_class(stage: str) -> "Callable[..., Objective]":
    """Return what builds the objective of a stage, with all that it imports."""
    module, _, class_name = _pairing(stage).objective.partition(":")
    build: Callable[..., Objective] = getattr(import_module(module), class_name)
    return build


def require_can_start_from_image_model(stage: str, config: "CascadeConfig") -> None:
    """Raise `UserError` if a setting of the stage takes away the meaning of an image model's weights."""
    deviation = getattr(config.stage_config(stage), "reference_deviation", None)
    if deviation is not None:
        key = f"{stage_kind(stage)}.reference_deviation"
        raise UserError(
            f"{key} is {deviation}, for a model that starts from nothing and predicts only what the reference does not "
            f"explain, but an image model predicts everything: with --init-from use --set {key}=null."
        )


def build_objective(
    stage: str, config: "CascadeConfig", model_folder: str, init_from: str | None = None
) -> "Objective":
    """Return the objective of a trainable stage, its weights drawn from the configuration's seed.

    Args:
        stage: "autoencoder" or a name of `config.trainable_stages()`.
        config: the cascade.
        model_folder: local folder with the frozen components that the stage needs (all but the autoencoder do).
        init_from: Stable-Diffusion-layout folder, URI or hub id whose weights the model starts from.

    Raises:
        UserError: the image model does not fit the stage.
    """
    if init_from:
        require_can_start_from_image_model(stage, config)
    import torch

    from videogen.training.objectives.initial_weights import load_initial_weights

    build = objective_class(stage)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        objective = build(config, stage, model_folder)
    if init_from:
        load_initial_weights(objective, init_from)
    return objective


def _pairing(stage: str) -> Pairing:
    kind = stage_kind(stage)
    if kind not in OBJECTIVES:
        raise KeyError(f"{stage!r} has no objective: name one in OBJECTIVES; there are {', '.join(OBJECTIVES)}")
    return OBJECTIVES[kind]
