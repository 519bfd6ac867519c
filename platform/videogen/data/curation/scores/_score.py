"""What every score is."""

from abc import ABC, abstractmethod
from typing import ClassVar

from videogen.data.curation.clip_frames import ClipFrames


class Score(ABC):
    """A number that says one thing about a clip. It judges nothing: policies do.

    Scores are deterministic: the same frames give the same number on every machine of one kind, on one thread.
    """

    name: ClassVar[str]
    """Column of the table of clips."""
    unit: ClassVar[str]
    range: ClassVar[tuple[float, float]]
    """Smallest and largest value possible."""
    description: ClassVar[str]
    """One sentence for people: what is measured, and what a high value means."""

    @abstractmethod
    def __call__(self, clip: ClipFrames) -> float:
        """Return the score of a clip."""
