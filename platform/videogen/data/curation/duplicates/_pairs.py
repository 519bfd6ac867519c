"""Pairs of near clips: candidates from shared buckets, and the choice of the clip to keep.

Clips are processed in order. A clip that is near to an earlier kept clip is a duplicate of the first such clip; all
others are kept. Every duplicate is therefore near to the clip that replaces it, and no two kept clips are near.
Similarity is not transitive: if B is near A, and C is near B but not A, both A and C are kept.
"""

from collections.abc import Iterator, Sequence

import numpy as np


def pairs_in_buckets(keys: np.ndarray, at_once: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield all pairs of items with the same key as two arrays of item numbers, about `at_once` pairs at a time.

    Args:
        keys: unsigned integers (N,), the bucket of each item.
        at_once: number of pairs; exceeded only if a single item has more.
    """
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    ends = np.searchsorted(ordered, ordered, side="right")
    # For each item in sorted order, the number of later items in its bucket.
    followers = ends - np.arange(1, len(keys) + 1)
    places = np.flatnonzero(followers)
    totals = np.cumsum(followers[places])
    start = 0
    while start < len(places):
        done = totals[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(totals, done + at_once, side="right")))
        some = places[start:stop]
        counts = followers[some]
        left = np.repeat(some, counts)
        within = np.arange(len(left)) - np.repeat(np.cumsum(counts) - counts, counts)
        yield order[left], order[left + 1 + within]
        start = stop


def unique_pairs(one: np.ndarray, other: np.ndarray, num_items: int) -> np.ndarray:
    """Return each unordered pair once, encoded as one number for `split_pairs`."""
    return np.unique(np.minimum(one, other) * np.int64(num_items) + np.maximum(one, other))


def split_pairs(pairs: np.ndarray, num_items: int) -> np.ndarray:
    """Return the pairs of `unique_pairs`, int (P, 2), the smaller number first."""
    return np.stack(np.divmod(pairs, np.int64(num_items)), axis=1)


def assign(groups: np.ndarray, pairs: np.ndarray, sources: Sequence[str] | None) -> list[int]:
    """Return the index of the clip that each clip duplicates, -1 if it is kept.

    Args:
        groups: int (N,), group of each clip, numbered from 0; clips of one group are near.
        pairs: int (P, 2), pairs of groups that are near, each once.
        sources: video of each clip, if clips of the same video do not count as near.
    """
    neighbours = _neighbours(pairs)
    # All kept clips of a group are from one video, since others would duplicate the first: one entry suffices.
    kept: dict[int, int] = {}
    originals = []
    for clip, group in enumerate(groups.tolist()):
        candidates = (kept.get(near, -1) for near in (group, *neighbours.get(group, ())))
        original = min(
            (other for other in candidates if other >= 0 and (sources is None or sources[other] != sources[clip])),
            default=-1,
        )
        originals.append(original)
        if original < 0:
            kept.setdefault(group, clip)
    return originals


def _neighbours(pairs: np.ndarray) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for one, other in pairs.tolist():
        found.setdefault(one, []).append(other)
        found.setdefault(other, []).append(one)
    return found


def name_originals(ids: Sequence[str], usable: np.ndarray, originals: Sequence[int]) -> list[str]:
    """Return the id of the clip that each clip duplicates, "" if it is kept or was not compared.

    Args:
        ids: of all clips.
        usable: int, indices of the compared clips, in order.
        originals: for each of these, the position in `usable` of the clip that it duplicates, -1 for none.
    """
    found = [""] * len(ids)
    for clip, original in zip(usable.tolist(), originals, strict=True):
        if original >= 0:
            found[clip] = ids[int(usable[original])]
    return found
