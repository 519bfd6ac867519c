"""Engine interface between the dispatcher and the stages: a job in, events out."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Generation:
    """Inputs of one job. The same values give the same frames, alone or in any batch."""

    job_id: str
    prompt: str
    negative_prompt: str
    seed: int
    reference_image: np.ndarray | None = None  # uint8 (H, W, 3)


@dataclass(frozen=True)
class StageStarted:
    """A stage has started the job."""

    stage: str


@dataclass(frozen=True)
class StageFinished:
    """A stage has finished the job."""

    stage: str
    seconds: float
    batch_size: int


@dataclass(frozen=True)
class ReferenceReady:
    """The reference image is available, long before the video."""

    png: bytes


@dataclass(frozen=True)
class VideoReady:
    """Last event of a successful job."""

    mp4: bytes


@dataclass(frozen=True)
class GenerationFailed:
    """Last event of a failed job."""

    code: str
    message: str


Event = StageStarted | StageFinished | ReferenceReady | VideoReady | GenerationFailed


class WorkerLostError(RuntimeError):
    """The process that ran the job was lost; the job may be retried."""


class VideoEngine(Protocol):
    """Runner of jobs. Closing the generator early cancels the job."""

    def run(self, generation: Generation) -> AsyncGenerator[Event, None]:
        """Yield the job's events; raise `WorkerLostError` if the job may be retried."""
        ...
