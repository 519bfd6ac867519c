"""Pairs of near clips: candidates that share a bucket, and which clip of several is kept."""

from collections.abc import Iterator, Sequence

import numpy as np


def pairs_in_buckets(keys: np.ndarray, at_once: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield every pair of items with the same key, as two arrays of item numbers, about `at_once` pairs a time.

    Args:
        keys: unsigned integers (N,), the bucket of each item.
        at_once: pairs; exceeded only where a single item has more.
    """
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    ends = np.searchsorted(ordered, ordered, side="right")
    # Of each item in sorted order, how many of its bucket come after it.
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
    """Return each unordered pair once, as one number that `split_pairs` takes apart."""
    return np.unique(np.minimum(one, other) * np.int64(num_items) + np.maximum(one, other))


def split_pairs(pairs: np.ndarray, num_items: int) -> np.ndarray:
    """Return the pairs of `unique_pairs`, int (P, 2), the smaller number first."""
    return np.stack(np.divmod(pairs, np.int64(num_items)), axis=1)


def assign(groups: np.ndarray, pairs: np.ndarray, sources: Sequence[str] | None) -> list[int]:
    """Return for each clip the clip that it duplicates, -1 if it is kept.

    Args:
        groups: int (N,), equal for clips that are the same and so near, numbered from 0.
        pairs: int (P, 2), groups that are near to each other, each pair once.
        sources: the video of each clip, if clips of one video do not count as near.
    """
    neighbours = _neighbours(pairs)
    # All kept clips of a group are of one video, since one of another would duplicate the first: one entry will do.
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
    """Return for each clip the id of the clip that it duplicates, "" if it is kept or was not compared.

    Args:
        ids: of all clips.
        usable: int, those that were compared, in order.
        originals: of each of these, the position in `usable` of what it duplicates, -1 for none.
    """
    found = [""] * len(ids)
    for clip, original in zip(usable.tolist(), originals, strict=True):
        if original >= 0:
            found[clip] = ids[int(usable[original])]
    return found
