"""Near duplicates by embedding, including cropped, mirrored and overlaid copies: LSH with exact comparison."""

import math
from collections.abc import Sequence

import numpy as np

from videogen.data.curation.duplicates._pairs import assign, name_originals, pairs_in_buckets, split_pairs, unique_pairs

MIN_COSINE = 0.96
"""Default smallest cosine of near duplicates; a suitable value depends on the model."""

_NUMBERS_AT_ONCE = 2**23
"""Numbers gathered at a time to compare pairs of embeddings; limits memory to about 100 MB."""
_MISSED = 1e-3
"""Probability that a pair at exactly the smallest cosine shares no bucket; for nearer pairs it is smaller."""
_MOST_BITS = 24


def find_duplicates_by_embedding(
    ids: Sequence[str],
    embeddings: np.ndarray,
    min_cosine: float = MIN_COSINE,
    sources: Sequence[str] | None = None,
) -> list[str]:
    """Find clips with a large cosine similarity.

    Candidates are clips on the same side of random hyperplanes (LSH); they are then compared exactly. There are no
    false positives, and of the pairs at the threshold one in a thousand is missed. The planes are fixed.

    Args:
        ids: of the clips; of near clips, the first one is kept.
        embeddings: float (N, D), not necessarily normalised; clips with a row of zeros are always kept.
        min_cosine: above 0.5, at most 1.
        sources: video of each clip, if clips of the same video do not count as duplicates of each other.

    Returns:
        The id of the clip that each clip duplicates, "" if it is kept.
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
    """Return the pairs, int (P, 2), of unit vectors, float32 (N, D), at or above a cosine."""
    count, width = vectors.shape
    found = np.empty(0, np.int64)
    if count < 2:
        return split_pairs(found, 1)
    # Embeddings of one model have a common direction; planes through their mean divide them evenly.
    mean = vectors.mean(axis=0)
    num_bits, num_tables = _tables(vectors, mean, min_cosine)
    generator = np.random.default_rng(0)
    for _ in range(num_tables):
        planes = generator.standard_normal((width, num_bits), np.float32)
        sides = vectors @ planes > mean @ planes
        keys = sides @ (1 << np.arange(num_bits, dtype=np.uint64)) if num_bits else np.zeros(count, np.uint64)
        new = [found]
        for one, other in pairs_in_buckets(keys, max(1, _NUMBERS_AT_ONCE // width)):
            # In float32, the product of a vector with itself may be slightly below 1.
            near = np.einsum("pd,pd->p", vectors[one], vectors[other]) >= min_cosine - 1e-6
            new.append(unique_pairs(one[near], other[near], count))
        found = np.unique(np.concatenate(new))
    return split_pairs(found, count)


def _tables(vectors: np.ndarray, mean: np.ndarray, min_cosine: float) -> tuple[int, int]:
    """Return the cheapest number of planes per hash table and number of hash tables.

    Few vectors are compared exhaustively: no planes, one table.
    """
    count, width = vectors.shape
    # Largest angle, seen from the mean, of a pair at the smallest cosine, for 99 % of the vectors.
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
