"""Near duplicates by embedding: what looks alike to a model, also where it was cropped, mirrored or overlaid."""

import math
from collections.abc import Sequence

import numpy as np

from videogen.data.curation.duplicates._pairs import assign, name_originals, pairs_in_buckets, split_pairs, unique_pairs

MIN_COSINE = 0.96
"""From here on two clips count as copies unless the caller says otherwise; it depends on the model."""

_NUMBERS_AT_ONCE = 2**23
"""Numbers gathered at once to compare pairs of embeddings; bounds memory at about 100 MB."""
_MISSED = 1e-3
"""Chance of a pair at exactly the smallest cosine to share no bucket; nearer ones are missed more seldom."""
_MOST_BITS = 24


def find_duplicates_by_embedding(
    ids: Sequence[str],
    embeddings: np.ndarray,
    min_cosine: float = MIN_COSINE,
    sources: Sequence[str] | None = None,
) -> list[str]:
    """Find clips whose embeddings point in nearly the same direction; see `assignment` for which of them are kept.

    Only clips on the same sides of some random planes are compared (LSH), then exactly: what is found is near, and of
    the pairs just near enough one in a thousand is missed. The planes are the same at each call.

    Args:
        ids: of the clips, in the order that decides what is kept.
        embeddings: float (N, D) of any length; a row of zeros stands for a clip without one, which duplicates nothing.
        min_cosine: above 0.5, at most 1.
        sources: the video of each clip, if clips of one video are not to count as duplicates of each other.

    Returns:
        For each clip the id of the clip that it duplicates, "" if it is kept.
    """
    if not 0.5 < min_cosine <= 1:
        raise ValueError(f"min_cosine is {min_cosine}, but clips are near at a cosine above 0.5, up to 1")
    if embeddings.ndim != 2 or len(embeddings) != len(ids):
        raise ValueError(f"embeddings are {embeddings.shape}, but there are {len(ids)} clips")
    vectors = embeddings.astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1)
    usable = np.flatnonzero(lengths > 0)
    vectors = vectors[usable] / lengths[usable, None]
    rows = np.ascontiguousarray(vectors).view(np.dtype((np.void, vectors.shape[1] * 4))).ravel()
    _, first, groups = np.unique(rows, return_index=True, return_inverse=True)
    own_sources = None if sources is None else [sources[number] for number in usable.tolist()]
    return name_originals(ids, usable, assign(groups, _near(vectors[first], min_cosine), own_sources))


def _near(vectors: np.ndarray, min_cosine: float) -> np.ndarray:
    """Return the pairs of unit vectors, float32 (N, D), at or above a cosine, int (P, 2)."""
    count, width = vectors.shape
    found = np.empty(0, np.int64)
    if count < 2:
        return split_pairs(found, 1)
    # Embeddings of one model all point roughly one way; planes through their mean divide them evenly.
    mean = vectors.mean(axis=0)
    num_bits, num_tables = _tables(vectors, mean, min_cosine)
    generator = np.random.default_rng(0)
    for _ in range(num_tables):
        planes = generator.standard_normal((width, num_bits), np.float32)
        sides = vectors @ planes > mean @ planes
        keys = sides @ (1 << np.arange(num_bits, dtype=np.uint64)) if num_bits else np.zeros(count, np.uint64)
        new = [found]
        for one, other in pairs_in_buckets(keys, max(1, _NUMBERS_AT_ONCE // width)):
            # Float32 rounds the product of a vector with itself to a little below 1.
            near = np.einsum("pd,pd->p", vectors[one], vectors[other]) >= min_cosine - 1e-6
            new.append(unique_pairs(one[near], other[near], count))
        found = np.unique(np.concatenate(new))
    return split_pairs(found, count)


def _tables(vectors: np.ndarray, mean: np.ndarray, min_cosine: float) -> tuple[int, int]:
    """Return how many planes make a bucket, and how many sets of buckets are needed, at the least cost.

    Few vectors are all compared: no plane, one bucket.
    """
    count, width = vectors.shape
    # Seen from the mean, a pair at the smallest cosine is at most this angle apart, for 99 in 100 vectors.
    radius = float(np.quantile(np.sqrt(np.maximum(1 - 2 * vectors @ mean + mean @ mean, 0)), 0.01))
    half_chord = math.sqrt((1 - min_cosine) / 2)
    angle = 2 * math.asin(min(1.0, half_chord / max(radius, 1e-6)))
    same_side = 1 - angle / math.pi
    best = (math.inf, 0, 1)
    for num_bits in range(_MOST_BITS + 1):
        found = same_side**num_bits
        if found < 1e-4:
            break
        num_tables = 1 if found >= 1 else math.ceil(math.log(_MISSED) / math.log1p(-found))
        compared = count**2 / 2 ** (num_bits + 1)
        best = min(best, (num_tables * width * (compared + count * num_bits), num_bits, num_tables))
    return best[1], best[2]
