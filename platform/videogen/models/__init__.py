"""Networks of the cascade, in diffusers' `ModelMixin`/`ConfigMixin` form."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from videogen.config import CascadeConfig

__all__ = ["count_parameters"]


def count_parameters(config: "CascadeConfig") -> dict[str, int]:
    """Return the number of parameters of each trainable network, built on the meta device."""
    import torch

    from videogen.models.networks import build_network

    with torch.device("meta"):
        networks = {name: build_network(config, name) for name in config.trainable_stages()}
    return {name: sum(parameter.numel() for parameter in network.parameters()) for name, network in networks.items()}
