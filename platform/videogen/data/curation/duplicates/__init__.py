"""Near duplicates in a whole table of clips, by perceptual hash and by embedding.

Which clip of a group is kept has one rule, in `assignment.py`; which pairs are near is found in `by_hash.py` and
`by_embedding.py`, both by comparing only what shares a bucket.
"""

from dataclasses import dataclass

from videogen.data.curation.duplicates.by_embedding import MIN_COSINE, find_duplicates_by_embedding
from videogen.data.curation.duplicates.by_hash import LARGEST_DISTANCE, MAX_DISTANCE, find_duplicates

__all__ = [
    "LARGEST_DISTANCE",
    "MAX_DISTANCE",
    "MIN_COSINE",
    "DedupThresholds",
    "find_duplicates",
    "find_duplicates_by_embedding",
]


@dataclass(frozen=True)
class DedupThresholds:
    """How alike clips of different videos are that count as near duplicates."""

    distance: int = MAX_DISTANCE
    """Bits in which their perceptual hashes may differ."""
    cosine: float = MIN_COSINE
    """Cosine of their embeddings; only where there are embeddings."""
