"""What the dispatcher knows of whatever makes videos: a job goes in, events come out."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Generation:
    """What to make. The same values give the same frames, alone or in any batch."""

    job_id: str
    prompt: str
    negative_prompt: str
    seed: int
    reference_image: np.ndarray | None = None  # uint8 (H, W, 3)


@dataclass(frozen=True)
class StageStarted:
    """A stage has taken up the job."""

    stage: str


@dataclass(frozen=True)
class StageFinished:
    """A stage is done with the job."""

    stage: str
    seconds: float
    batch_size: int


@dataclass(frozen=True)
class ReferenceReady:
    """The reference image can be shown, long before the video."""

    png: bytes


@dataclass(frozen=True)
class VideoReady:
    """The last event of a job that succeeded."""

    mp4: bytes


@dataclass(frozen=True)
class GenerationFailed:
    """The last event of a job that did not."""

    code: str
    message: str


Event = StageStarted | StageFinished | ReferenceReady | VideoReady | GenerationFailed


class WorkerLostError(RuntimeError):
    """Whatever ran the job has gone, through no fault of the job: it may be tried again."""


class VideoEngine(Protocol):
    """Runs jobs. Closing the generator early cancels the job at the next chance."""

    def run(self, generation: Generation) -> AsyncGenerator[Event, None]:
        """Yield the job's events; raise `WorkerLostError` when the job may be tried again."""
        ...
