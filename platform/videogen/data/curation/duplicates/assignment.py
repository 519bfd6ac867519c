"""Of clips that are near to each other, which is kept, and which clip each of the others duplicates.

Clips are gone through in order. One that is near to an earlier clip that was kept duplicates it, the first such; all
others are kept. So every duplicate is near to the very clip that stands for it, no two kept clips are near, and
likeness does not travel: where B is like A, and C like B but not like A, both A and C are kept.
"""

from collections.abc import Sequence

import numpy as np


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
