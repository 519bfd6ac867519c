"""Base class of training objectives: data, loss and export of a trainable stage.

One loop (`videogen.training.loop`) trains every objective. The loop is independent of diffusion; an objective is
independent of DeepSpeed and Ray.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn


class Adversary(Protocol):
    """A discriminator that is trained beside the model (VideoGen, sec. 3.4): replicated, with its own optimizer."""

    def step(self) -> dict[str, float]:
        """Take one optimizer step on the samples of the objective's last forward passes; return values to log."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return weights and optimizer state."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> Any:
        """Restore the result of `state_dict`."""
        ...

    def to(self, device: torch.device) -> Any:
        """Move to the device of the training worker."""
        ...


class Objective(nn.Module, ABC):
    """Base class of all objectives: `engine(batch, generator)` calls `forward`.

    A sub-class sets the attributes, implements `collate` and `forward`, and builds its model (on the CPU, from a fixed
    seed) in an `__init__` that `build_objective` calls with the cascade's configuration, the name of the stage and the
    local folder of the model, whose frozen components are there. Only `model` is trained; helpers such as a frozen VAE
    go through `add_frozen`.
    """

    stage: str
    """Name of the stage in the configuration, e.g. "base" or "upsample_1"."""
    component: str
    """Sub-folder of the model that `save` fills, e.g. "base"."""
    fields: tuple[str, ...]
    """Columns that are read of each clip."""
    adversary: Adversary | None = None

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model
        # A plain dict keeps helpers out of parameters(), state_dict() and so out of ZeRO's partitions.
        self._frozen: dict[str, nn.Module] = {}

    def add_frozen(self, name: str, module: nn.Module) -> None:
        """Keep `module` as `self.<name>`: evaluated without gradients to its weights, moved along, never trained."""
        self._frozen[name] = module.eval().requires_grad_(False)

    def __getattr__(self, name: str) -> Any:
        frozen = self.__dict__.get("_frozen", {})
        return frozen[name] if name in frozen else super().__getattr__(name)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        for module in self._frozen.values():
            module._apply(fn)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @abstractmethod
    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Turn dataset rows into one batch of CPU tensors, clips first. Runs in the loader's thread."""

    @abstractmethod
    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        """Return the mean loss of the batch and values to log.

        All randomness comes from `generator`, which the loop seeds from (seed, sample counter). Logs are numbers or
        0-d tensors; "timestep_loss" may hold (timesteps in 0..1, loss of each clip), which is logged by bins.
        """

    def load_image_model(self, source: str) -> None:
        """Start from the weights of an image model in the Stable Diffusion layout.

        Sub-classes whose stage has a counterpart in an image model override it; others keep their fresh weights.

        Args:
            source: folder, URI or hub id.

        Raises:
            UserError: the part cannot be read.
            ValueError: its layout or its widths do not fit the preset.
        """

    def save(self, state_dict: dict[str, Tensor], folder: str) -> None:
        """Write the component into `folder`; `state_dict` holds the model's full fp32 weights (EMA if it is on)."""
        self.with_weights(state_dict).save_pretrained(folder)

    def with_weights(self, state_dict: dict[str, Tensor]) -> Any:
        """Return a diffusers model like `model` with these weights; `model` itself may be partitioned by ZeRO-3."""
        model: Any = self.model
        with torch.device("meta"):
            copy = type(model).from_config(model.config)
        copy.load_state_dict(state_dict, assign=True)
        return copy.eval()


def tensor_column(rows: list[dict[str, Any]], field: str) -> Tensor:
    """Stack one field of dataset rows into a float32 tensor (B, ...)."""
    return torch.from_numpy(np.stack([row[field] for row in rows])).float()
