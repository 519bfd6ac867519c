"""Base class of stages: one step of the cascade as a plain class, independent of any cluster.

In-process generation, batch generation and the service are built from these classes. Samples are dicts of numpy
arrays, strings and numbers, which pass through Arrow tables and object stores unchanged.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import torch

from videogen.stages.cascade import CascadeConfig
from videogen.stages.component import Component
from videogen.stages.configuration import load_cascade_config
from videogen.stages.sample import Sample


class Stage(ABC):
    """One step of the cascade: `stage(samples)` returns the values that it adds to each sample.

    On the CPU the result of a sample is bit-equal in any batch and on any number of cores: samples run one by one on
    one thread, because the order of summation in CPU kernels depends on both. On other devices the samples of a batch
    run together.
    """

    consumes: ClassVar[tuple[str, ...]]
    """Keys that a sample must hold."""
    produces: ClassVar[tuple[str, ...]]
    """Keys of the values that the stage returns."""

    def __init__(self, name: str, parts: Mapping[str, Any], config: CascadeConfig, device: str = "cpu") -> None:
        """Build the stage; sub-classes take what they need from the arguments, which are the same for all.

        Args:
            name: of the stage in `config.stage_names()`.
            parts: the loaded components, by the names that `components` gives.
            config: the cascade.
            device: where to run.
        """
        self.name = name
        self.device = torch.device(device)

    @classmethod
    @abstractmethod
    def components(cls, name: str) -> dict[str, Component]:
        """Return the parts of a model folder that the stage `name` needs, by sub-folder; stages may share parts."""

    @classmethod
    def from_pretrained(cls, folder: str, name: str, device: str = "cpu") -> Self:
        """Load the stage `name` from a local model folder in diffusers layout."""
        parts = {part: component.load(folder, part) for part, component in cls.components(name).items()}
        return cls(name, parts, load_cascade_config(folder), device)

    @abstractmethod
    def run(self, samples: Sequence[Sample]) -> list[Sample]:
        """Return what the stage adds to each sample; called with gradients off."""

    @torch.no_grad()
    def __call__(self, samples: Sequence[Sample]) -> list[Sample]:
        """Return, in order, what the stage adds to each of `samples`."""
        if not samples:
            return []
        if self.device.type != "cpu":
            return self.run(samples)
        with single_thread():
            return [self.run([sample])[0] for sample in samples]

    def seeds(self, samples: Sequence[Sample]) -> list[torch.Generator]:
        """Return one generator per sample, which depends only on the sample's seed and on the stage.

        Noise is drawn on the CPU, so that a seed gives the same noise on every device.
        """
        return [torch.Generator().manual_seed(stage_seed(int(sample["seed"]), self.name)) for sample in samples]

    def noise(self, samples: Sequence[Sample], shape: Sequence[int]) -> torch.Tensor:
        """Return standard normal noise (B, *shape) on the stage's device."""
        drawn = [torch.randn(tuple(shape), generator=generator) for generator in self.seeds(samples)]
        return torch.stack(drawn).to(self.device)

    def tensor(self, samples: Sequence[Sample], key: str) -> torch.Tensor:
        """Return the samples' arrays under `key` as one float32 tensor (B, ...) on the stage's device."""
        # Arrays from an object store are read-only; torch must not share their memory.
        arrays = [torch.tensor(sample[key]) for sample in samples]
        return torch.stack(arrays).to(self.device, torch.float32)


def stage_seed(seed: int, name: str) -> int:
    """Return the seed of the noise of one stage; stages of one sample must not share their noise."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


@contextmanager
def single_thread() -> Iterator[None]:
    """Run torch's kernels on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
