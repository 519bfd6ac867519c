"""Near duplicates by perceptual hash: the hash of a clip, and all pairs within a Hamming distance."""

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from videogen.data.curation.duplicates._pairs import assign, name_originals, pairs_in_buckets, split_pairs, unique_pairs
from videogen.data.curation.scores import ClipFrames

_MAX_FRAMES = 32
_SIDE = 32
_MIN_CONTRAST = 2.0
"""Smallest standard deviation of luma of a distinguishable picture."""


def perceptual_hash(clip: ClipFrames) -> int | None:
    """Return the 64-bit perceptual hash (pHash) of a clip's average picture, or None if it has no content (e.g. black).

    The picture is averaged over the clip, so that copies at other frame rates have similar hashes. Its 8 x 8 lowest DCT
    coefficients without the constant one, plus the next one, are compared with their median. Hashes of copies differ
    in few of the 64 bits, those of unrelated clips in about 32.
    """
    import cv2

    luma = clip.luma[clip.spread(_MAX_FRAMES)].mean(axis=0, dtype=np.float32)
    if luma.std() < _MIN_CONTRAST:
        return None
    small = cv2.resize(luma, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    # 64 coefficients; the constant one only encodes brightness.
    spectrum = cv2.dct(small)
    values = np.append(spectrum[:8, :8].ravel()[1:], spectrum[8, 0])
    bits = values > np.median(values)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


MAX_DISTANCE = 6
"""Default largest Hamming distance of copies. Re-encoded, resized and brightened copies differ in 0 to 4 of 64 bits,
other parts of the same shot in about 14, unrelated clips in 24 and more."""

_BITS = 64
LARGEST_DISTANCE = 16
_PAIRS_AT_ONCE = 2**22
"""Pairs compared at once; bounds memory at about 200 MB."""
_SORTING = 30
"""Cost of sorting one hash, in comparisons of two hashes."""


def find_duplicates(
    ids: Sequence[str],
    phashes: Sequence[int | None] | np.ndarray,
    max_distance: int = MAX_DISTANCE,
    sources: Sequence[str] | None = None,
) -> list[str]:
    """Find clips whose perceptual hashes differ in few bits; no near pair is missed.

    Time grows with the number of clips and of near pairs, not with the number of all pairs.

    Args:
        ids: of the clips; of near clips, the first one is kept.
        phashes: 64-bit hashes of the clips; None for clips without one, which are always kept.
        max_distance: Hamming distance, 0 to 16; time and memory grow steeply above 10.
        sources: video of each clip, if clips of the same video do not count as duplicates of each other.

    Returns:
        The id of the clip that each clip duplicates, "" if it is kept.
    """
    if not 0 <= max_distance <= LARGEST_DISTANCE:
        raise ValueError(f"max_distance is {max_distance}, but hashes are near from 0 to {LARGEST_DISTANCE} bits")
    if len(phashes) != len(ids):
        raise ValueError(f"there are {len(phashes)} hashes for {len(ids)} clips")
    usable = np.array([number for number, phash in enumerate(phashes) if phash is not None], np.int64)
    hashes = np.array([phash for phash in phashes if phash is not None], np.uint64)
    distinct, groups = np.unique(hashes, return_inverse=True)
    own_sources = None if sources is None else [sources[number] for number in usable.tolist()]
    return name_originals(ids, usable, assign(groups, _near(distinct, max_distance), own_sources))


def _near(hashes: np.ndarray, max_distance: int) -> np.ndarray:
    """Return the pairs, int (P, 2), of distinct hashes, uint64 (N,), within a Hamming distance."""
    found = np.empty(0, np.int64)
    if len(hashes) < 2 or max_distance == 0:
        return split_pairs(found, 1)
    for mask in _masks(max_distance, len(hashes)):
        new = [found]
        for one, other in pairs_in_buckets(hashes & mask, _PAIRS_AT_ONCE):
            near = np.bitwise_count(hashes[one] ^ hashes[other]) <= max_distance
            new.append(unique_pairs(one[near], other[near], len(hashes)))
        found = np.unique(np.concatenate(new))
    return split_pairs(found, len(hashes))


def _masks(max_distance: int, num_hashes: int) -> Iterator[np.uint64]:
    """Yield masks such that hashes within the distance are equal under at least one of them.

    If hashes are split into `distance + equal` blocks, two near hashes have at least `equal` blocks in common (Manku et
    al. 2007); there is one mask for each choice of blocks. More blocks give smaller buckets but more masks.
    """

    def cost(equal: int) -> float:
        blocks = max_distance + equal
        bits = _BITS * equal / blocks
        return math.comb(blocks, equal) * (_SORTING * num_hashes + num_hashes**2 / 2 ** (bits + 1))

    equal = min(range(1, 6), key=cost)
    borders = np.linspace(0, _BITS, max_distance + equal + 1).round().astype(int).tolist()
    blocks = [(1 << end) - (1 << start) for start, end in itertools.pairwise(borders)]
    for chosen in itertools.combinations(blocks, equal):
        yield np.uint64(sum(chosen))
