"""Near duplicates in a whole table of clips, by perceptual hash and by embedding.

Which clip of a group is kept has one rule, in `assignment.py`; which pairs are near is found in `by_hash.py` and
`by_embedding.py`, both by comparing only what shares a bucket.
"""

from videogen.data.curation.duplicates.by_embedding import MIN_COSINE, find_duplicates_by_embedding
from videogen.data.curation.duplicates.by_hash import MAX_DISTANCE, find_duplicates

__all__ = ["MAX_DISTANCE", "MIN_COSINE", "find_duplicates", "find_duplicates_by_embedding"]
