"""Pairs of items that share a bucket, a bounded number at a time."""

from collections.abc import Iterator

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
