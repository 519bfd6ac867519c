"""Training state: position of a run, kept in its checkpoints beside weights and optimizer."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from videogen.errors import UserError


@dataclass(frozen=True)
class TrainState:
    """Position of a run. Everything else (data order, noise, learning rate) is a function of it."""

    seed: int
    """Seed of data order and training noise."""
    run: str
    """Name of the run, with a hash of configuration and data."""
    world_size: int
    """Workers that wrote the shards of the checkpoint."""
    data: str = ""
    """Fingerprint of the data, on which the order of samples depends."""
    samples_seen: int = 0
    """Clips that have entered an optimizer step."""
    step: int = 0
    """Optimizer steps taken."""

    def advanced(self, samples: int) -> Self:
        """Return the state after one more optimizer step on `samples` clips."""
        return replace(self, samples_seen=self.samples_seen + samples, step=self.step + 1)

    def at(self, other: Self) -> Self:
        """Return this run's state at the position of `other`, the checkpoint that it continues.

        Raises:
            UserError: the checkpoint was trained on other data.
        """
        if other.data != self.data:
            raise UserError(
                f"Run {self.run!r} was training on data with the fingerprint {other.data!r} and cannot continue on "
                f"{self.data!r}: put the data back as it was, or train into another folder."
            )
        return replace(self, samples_seen=other.samples_seen, step=other.step)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the state from the result of `as_dict`."""
        return cls(**values)
