"""Near-duplicate detection over a whole table of clips, by perceptual hash and by embedding."""

from dataclasses import dataclass

from videogen.data.curation.duplicates._by_embedding import MIN_COSINE, find_duplicates_by_embedding
from videogen.data.curation.duplicates._by_hash import LARGEST_DISTANCE, MAX_DISTANCE, find_duplicates, perceptual_hash

__all__ = [
    "LARGEST_DISTANCE",
    "MAX_DISTANCE",
    "MIN_COSINE",
    "DedupThresholds",
    "find_duplicates",
    "find_duplicates_by_embedding",
    "perceptual_hash",
]


@dataclass(frozen=True)
class DedupThresholds:
    """Thresholds from which clips of different videos count as near duplicates."""

    distance: int = MAX_DISTANCE
    """Bits in which their perceptual hashes may differ."""
    cosine: float = MIN_COSINE
    """Cosine of their embeddings; only where there are embeddings."""
