"""Stages, components and objectives of a whole cascade, built from its configuration.

In-process generation, batch generation, the service and training all use these functions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from videogen.errors import UserError
from videogen.stages.cascade import CascadeConfig
from videogen.stages.classes import build_network, objective_class, stage_class
from videogen.stages.component import Component
from videogen.stages.objective import Objective
from videogen.stages.registry import STAGES, stage_definition
from videogen.stages.sample import Sample
from videogen.stages.stage import Stage


def components(config: CascadeConfig) -> dict[str, Component]:
    """Return all parts of a model folder, in the order in which the stages need them."""
    found: dict[str, Component] = {}
    for name in config.stage_names():
        found |= stage_class(name).components(name)
    return found


def possible_components() -> tuple[str, ...]:
    """Return the names of the parts that any cascade may have."""
    found: dict[str, None] = {}
    for kind in STAGES:
        definition = stage_definition(kind)
        if definition.class_name is None:
            continue
        numbers = range(1, definition.max_count + 1)
        names = (kind, *(f"{kind}_{number}" for number in numbers if len(numbers) > 1))
        found |= dict.fromkeys(part for name in names for part in stage_class(name).components(name))
    return tuple(found)


def build_stages(config: CascadeConfig, parts: Mapping[str, Any], device: str = "cpu") -> list[Stage]:
    """Return all stages in order, around parts that are loaded already; `parts` holds what `components` names."""
    return [stage_class(name)(name, parts, config, device) for name in config.stage_names()]


def load_stage(name: str, folder: str, device: str = "cpu") -> Stage:
    """Return the stage `name` of a local model folder, with its weights on `device`."""
    return stage_class(name).from_pretrained(folder, name, device)


def load_stages(config: CascadeConfig, folder: str, device: str = "cpu") -> list[Stage]:
    """Return all stages in order."""
    return [load_stage(name, folder, device) for name in config.stage_names()]


def run_stages(stages: Sequence[Stage], samples: Sequence[Sample]) -> list[Sample]:
    """Pass samples through stages; each result holds the sample's own keys and all that the stages added."""
    results = [dict(sample) for sample in samples]
    for stage in stages:
        for result, added in zip(results, stage(results), strict=True):
            result.update(added)
    return results


def build_objective(stage: str, config: CascadeConfig, model_folder: str, init_from: str | None = None) -> Objective:
    """Return the objective of a trainable stage, its weights drawn from the configuration's seed.

    Args:
        stage: a name of `config.trainable_stages()`.
        config: the cascade.
        model_folder: local folder with the frozen components that the stage needs (all but the autoencoder do).
        init_from: Stable-Diffusion-layout folder, URI or hub id whose weights the model starts from.

    Raises:
        UserError: the image model does not fit the stage.
    """
    if init_from:
        config.stage_config(stage).require_can_start_from_image_model(stage)
    build = objective_class(stage)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        objective = build(config, stage, model_folder)
    if init_from:
        try:
            objective.load_image_model(init_from)
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"--init-from {init_from!r} does not fit stage {stage!r} of this preset ({reason}): "
                f"use a model of the same layout and widths, or set {stage}.model to the model's."
            ) from error
    return objective


def count_parameters(config: CascadeConfig) -> dict[str, int]:
    """Return the number of parameters of each trainable network, built on the meta device."""
    with torch.device("meta"):
        networks = {name: build_network(config, name) for name in config.trainable_stages()}
    return {name: sum(parameter.numel() for parameter in network.parameters()) for name, network in networks.items()}
