"""Near duplicates: all of them are found, in time that does not explode, and one rule says which are kept."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videogen.data.curation.duplicates import find_duplicates, find_duplicates_by_embedding


def names(count: int) -> list[str]:
    return [f"clip-{number}" for number in range(count)]


def by_the_rule(ids, near, sources=None) -> list[str]:
    """Return the answer by comparing everything with everything."""
    kept: list[int] = []
    found = []
    for clip in range(len(ids)):
        other = [k for k in kept if near(k, clip) and (sources is None or sources[k] != sources[clip])]
        found.append(ids[other[0]] if other else "")
        if not other:
            kept.append(clip)
    return found


def flipped(value: int, bits) -> int:
    for bit in bits:
        value ^= 1 << int(bit)
    return value


hashes = st.integers(0, 2**64 - 1)


@st.composite
def crowded_hashes(draw):
    """Return hashes many of which are near to each other, with chains among them, and some missing."""
    seeds = draw(st.lists(hashes, min_size=1, max_size=4))
    flips = st.lists(st.integers(0, 63), max_size=9)
    near = draw(st.lists(st.tuples(st.sampled_from(seeds), flips), max_size=40))
    return draw(st.permutations([None, *seeds, *(flipped(seed, bits) for seed, bits in near)]))


@given(crowded_hashes(), st.integers(0, 16), st.integers(1, 5))
@settings(max_examples=200, deadline=None)
def test_hashes_give_what_comparing_all_pairs_gives(phashes, max_distance, num_sources):
    ids = names(len(phashes))

    def near(a, b):
        one, other = phashes[a], phashes[b]
        return one is not None and other is not None and (one ^ other).bit_count() <= max_distance

    assert find_duplicates(ids, phashes, max_distance) == by_the_rule(ids, near)
    sources = [str(number % num_sources) for number in range(len(ids))]
    assert find_duplicates(ids, phashes, max_distance, sources) == by_the_rule(ids, near, sources)


@pytest.mark.slow
def test_every_planted_pair_among_100_000_hashes_is_found_in_seconds():
    rng = np.random.default_rng(0)
    count, planted = 100_000, 1000
    phashes = rng.integers(0, 2**64, count, np.uint64)
    originals = rng.choice(count // 2, planted, replace=False)
    copies = count // 2 + rng.choice(count // 2, planted, replace=False)
    for original, copy in zip(originals, copies, strict=True):
        phashes[copy] = flipped(int(phashes[original]), rng.choice(64, rng.integers(0, 7), replace=False))
    expected = dict(zip(copies.tolist(), originals.tolist(), strict=True))
    started = time.process_time()
    found = find_duplicates(names(count), phashes, 6)
    assert time.process_time() - started < 20
    assert {clip: name for clip, name in enumerate(found) if name} == {
        copy: f"clip-{original}" for copy, original in expected.items()
    }


def test_a_hundred_thousand_copies_of_one_clip_are_no_trouble():
    phashes = np.full(100_000, 12345, np.uint64)
    found = find_duplicates(names(len(phashes)), phashes)
    assert found[0] == ""
    assert set(found[1:]) == {"clip-0"}


def test_likeness_does_not_travel():
    a, b, c = 0, flipped(0, range(5)), flipped(0, range(10))
    assert find_duplicates(["a", "b", "c"], [a, b, c], 6) == ["", "a", ""]
    assert find_duplicates(["b", "a", "c"], [b, a, c], 6) == ["", "b", "b"]


def test_clips_of_one_video_are_no_duplicates_of_each_other_if_their_videos_are_named():
    sources = ["one.mp4", "one.mp4", "two.mp4", "two.mp4"]
    assert find_duplicates(list("abcd"), [7, 7, 7, 7], 6, sources) == ["", "", "a", "a"]
    assert find_duplicates(list("abcd"), [7, 7, 7, 7], 6) == ["", "a", "a", "a"]


def test_nothing_and_clips_without_a_hash():
    assert find_duplicates([], [], 6) == []
    assert find_duplicates(["a", "b"], [None, None], 6) == ["", ""]


@pytest.mark.parametrize("distance", [-1, 17])
def test_impossible_distances_are_refused(distance):
    with pytest.raises(ValueError, match=str(distance)):
        find_duplicates(["a"], [1], distance)


def turned(vectors: np.ndarray, cosine: float, rng: np.random.Generator) -> np.ndarray:
    """Return unit vectors at a cosine to others, in random directions."""
    sideways = rng.standard_normal(vectors.shape)
    sideways -= (sideways * vectors).sum(axis=1, keepdims=True) * vectors
    sideways /= np.linalg.norm(sideways, axis=1, keepdims=True)
    return cosine * vectors + np.sqrt(1 - cosine**2) * sideways


def like_clip(count: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Return unit vectors that mostly point one way, as those of CLIP do."""
    vectors = rng.standard_normal((count, width)) / np.sqrt(width) + np.eye(width)[0]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("cosine", [0.965, 0.99, 1.0])
def test_planted_pairs_among_10_000_embeddings_are_found_and_nothing_else(cosine):
    rng = np.random.default_rng(1)
    base = like_clip(10_000, 64, rng)
    planted = rng.choice(len(base), 500, replace=False)
    vectors = np.concatenate([base, turned(base[planted], cosine, rng)]).astype(np.float32)
    found = find_duplicates_by_embedding(names(len(vectors)), vectors, 0.96)
    for clip, name in enumerate(found):
        if name:
            assert vectors[clip] @ vectors[int(name.removeprefix("clip-"))] >= 0.96 - 1e-5
    missed = sum(not name for name in found[len(base) :])
    assert missed <= 2
    assert sum(map(bool, found[: len(base)])) == 0


@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_few_embeddings_give_what_comparing_all_pairs_gives(seed, num_sources):
    rng = np.random.default_rng(seed)
    base = like_clip(6, 8, rng)
    vectors = np.concatenate([base, turned(base, 0.97, rng), turned(base, 0.9, rng), base[:2], np.zeros((1, 8))])
    vectors = vectors[rng.permutation(len(vectors))].astype(np.float32)
    ids = names(len(vectors))
    sources = [str(number % num_sources) for number in range(len(ids))]

    def near(a, b):
        return float(vectors[a] @ vectors[b]) >= 0.95 - 1e-6

    assert find_duplicates_by_embedding(ids, vectors, 0.95) == by_the_rule(ids, near)
    assert find_duplicates_by_embedding(ids, vectors, 0.95, sources) == by_the_rule(ids, near, sources)


def test_half_precision_and_length_make_no_difference():
    vectors = like_clip(50, 32, np.random.default_rng(2))
    vectors[10] = vectors[3]
    for some in (vectors.astype(np.float16), (vectors * 7).astype(np.float32)):
        found = find_duplicates_by_embedding(names(50), some, 0.99)
        assert [(clip, name) for clip, name in enumerate(found) if name] == [(10, "clip-3")]


def test_wrong_embeddings_are_refused():
    with pytest.raises(ValueError, match="3"):
        find_duplicates_by_embedding(names(3), np.zeros((2, 4), np.float32))
    with pytest.raises(ValueError, match=r"0\.2"):
        find_duplicates_by_embedding(names(2), np.zeros((2, 4), np.float32), 0.2)
