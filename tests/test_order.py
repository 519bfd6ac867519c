"""The order of training data: properties of epochs, of what blocks it opens, and of buckets."""

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests._loader_clips import Numbered, batches_of, collate, numbers
from videogen.data.datasets.dataset import Shapes
from videogen.errors import UserError
from videogen.training.buckets import Batches, Bucket, sort_into_buckets
from videogen.training.loader import BatchPlan, Loader, sample_index
from videogen.training.order import epoch_order, num_lanes

quick = settings(max_examples=60, deadline=None)
sizes = st.lists(st.integers(1, 9), min_size=1, max_size=40)


# --- order -------------------------------------------------------------------------------------------------------


@quick
@given(sizes, st.integers(1, 80), st.sampled_from([1, 2, 6, 8]), st.integers(0, 7), st.integers(0, 9))
def test_an_epoch_has_every_row_once_and_is_a_function_of_its_arguments(sizes, buffer, batch, phase, seed):
    ends, phase = np.cumsum(sizes), phase % batch
    order = epoch_order((seed, 0), int(ends[-1]), ends, buffer, batch, phase)
    assert sorted(order.tolist()) == list(range(ends[-1]))
    assert order.tolist() == epoch_order((seed, 0), int(ends[-1]), ends, buffer, batch, phase).tolist()


@quick
@given(sizes, st.integers(0, 9), st.integers(0, 3))
def test_a_table_that_the_buffer_holds_is_permuted_fully_by_seed_and_epoch(sizes, seed, epoch):
    dataset = Numbered(sizes)
    length = len(dataset)
    batches = Batches(dataset, length, seed, shuffle_buffer=length)
    expected = np.random.default_rng((seed, epoch)).permutation(length).tolist()
    assert batches.rows(epoch * length).tolist() == expected
    assert [sample_index(epoch * length + i, seed, length) for i in range(length)] == expected


def test_the_order_of_a_large_table_differs_by_seed_epoch_and_data():
    rows = [
        Batches(Numbered([8] * 100, name=name), 16, seed, shuffle_buffer=64).rows(samples).tolist()
        for name, seed, samples in (("a", 0, 0), ("b", 0, 0), ("a", 1, 0), ("a", 0, 800))
    ]
    assert len({tuple(row) for row in rows}) == 4


@quick
@given(sizes, st.integers(1, 60), st.sampled_from([(1, 1), (2, 1), (3, 2), (4, 3), (12, 1)]), st.integers(0, 30))
def test_any_number_of_workers_shares_out_the_same_batches(sizes, buffer, shape, first):
    world_size, accumulation = shape
    dataset = Numbered(sizes)
    whole = batches_of(dataset, 12, buffer, 3, first)
    shared = [
        numbers(dataset, BatchPlan(12, accumulation, world_size, rank), first * 12, 3, shuffle_buffer=buffer)
        for rank in range(world_size)
    ]
    assert [[*itertools.chain(*parts)] for parts in zip(*shared, strict=True)] == whole


def test_rows_cost_a_few_bytes_each():
    import tracemalloc

    dataset = Numbered([8] * 25_000, labels=np.arange(200_000) % 2)
    tracemalloc.start()
    batches = Batches(dataset, 256, seed=0)
    batches.rows(0)
    batches.rows(256 * 800)  # two epochs of each bucket are held now
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held <= 16 * 200_000


# --- locality ----------------------------------------------------------------------------------------------------


def reads_with_cache(rows: Sequence[int], rows_per_block: int, cached_blocks: int) -> int:
    """Return how many blocks are read for these rows, one after the other, if the latest used ones are kept."""
    held: dict[int, None] = {}
    reads = 0
    for row in rows:
        block = row // rows_per_block
        reads += block not in held
        held.pop(block, None)
        held[block] = None
        if len(held) > cached_blocks:
            del held[next(iter(held))]
    return reads


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([4, 8, 16]), st.sampled_from([32, 64]), st.sampled_from([1, 2, 4, 8]), st.integers(0, 99))
def test_each_worker_reads_its_share_of_the_blocks_about_once(rows_per_block, batch, world_size, seed):
    num_blocks, buffer = 500, 512
    length = num_blocks * rows_per_block
    batches = Batches(Numbered([rows_per_block] * num_blocks), batch, seed, shuffle_buffer=buffer)
    steps = [batches.rows(step * batch) for step in range(length // batch)]
    full = np.random.default_rng(seed).permutation(length)
    cached = 2 * buffer // rows_per_block // world_size
    reads, reads_of_full_shuffle = 0, 0
    for rank in range(world_size):
        mine = slice(rank * batch // world_size, (rank + 1) * batch // world_size)
        reads += reads_with_cache(np.concatenate([rows[mine] for rows in steps]), rows_per_block, cached)
        theirs = [full[step * batch : (step + 1) * batch][mine] for step in range(len(steps))]
        reads_of_full_shuffle += reads_with_cache(np.concatenate(theirs), rows_per_block, cached)
    assert reads <= 1.2 * num_blocks
    assert reads_of_full_shuffle > 2 * reads


def test_a_batch_opens_few_blocks_and_mixes_far_rows():
    batch, rows_per_block, num_blocks = 1024, 32, 2000
    length = rows_per_block * num_blocks
    batches = Batches(Numbered([rows_per_block] * num_blocks), batch, seed=0, shuffle_buffer=1024)
    opened = [len(np.unique(batches.rows(step * batch) // rows_per_block)) for step in range(20)]
    full = np.random.default_rng(0).permutation(length)[:batch]
    assert max(opened) <= 64 < len(np.unique(full // rows_per_block)) / 10
    # The rows of a batch come from all over the table, as those of a full shuffle do.
    means = [batches.rows(step * batch).mean() / length for step in range(20)]
    assert np.mean(means) == pytest.approx(0.5, abs=0.05)
    first = batches.rows(0)
    assert abs(np.corrcoef(np.arange(batch), first)[0, 1]) < 0.3


def test_small_batches_hardly_ever_hold_neighbours():
    batch, rows_per_block = 32, 8
    batches = Batches(Numbered([rows_per_block] * 4000), batch, seed=0, shuffle_buffer=1024)
    assert num_lanes(batch, 1024, rows_per_block) == batch
    distinct = [len(np.unique(batches.rows(step * batch) // rows_per_block)) for step in range(200)]
    assert np.mean(distinct) > 31.5


# --- buckets -----------------------------------------------------------------------------------------------------

labelled = st.lists(st.integers(0, 3), min_size=1, max_size=120)


@quick
@given(labelled, st.sampled_from([1, 4, 6]), st.integers(1, 60))
def test_a_batch_holds_one_shape_and_every_row_comes_once_an_epoch(labels, batch, buffer):
    size_of_blocks = [5] * (len(labels) // 5) + [len(labels) % 5] * (len(labels) % 5 > 0)
    steps = batches_of(Numbered(size_of_blocks, labels), batch, buffer, 3 * len(labels) // batch + 4)
    streams: dict[int, list[int]] = {}
    for rows in steps:
        shape = {labels[row] for row in rows}
        assert len(shape) == 1
        streams.setdefault(shape.pop(), []).extend(rows)
    for label, stream in streams.items():
        length = labels.count(label)
        for start in range(0, len(stream) - length + 1, length):
            assert sorted(stream[start : start + length]) == [row for row in range(len(labels)) if labels[row] == label]


def test_buckets_take_turns_in_proportion():
    labels = [0] * 600 + [1] * 200
    steps = batches_of(Numbered([8] * 100, labels), 8, 64, 100)
    turns = [labels[rows[0]] for rows in steps]
    assert Counter(turns) == {0: 75, 1: 25}
    assert 5 < sum(turns[:50]) < 20
    assert turns != sorted(turns)


def test_a_step_begins_at_whole_batches_only():
    with pytest.raises(UserError, match=r"10 samples .* batches of 8: .*batch_size"):
        Batches(Numbered([8] * 4), 8, seed=0).rows(10)


def test_shapes_are_sorted_by_size_frames_and_half_octaves_of_rate():
    height, width, frames = np.array([[64, 64, 64, 32], [96] * 4, [16, 16, 15, 16]])
    shapes = Shapes(height, width, frames, np.array([23.976, 25, 25, 60.0]))
    buckets, labels = sort_into_buckets(shapes)
    assert buckets == [Bucket(32, 96, 16, 64.0), Bucket(64, 96, 15, 2**4.5), Bucket(64, 96, 16, 2**4.5)]
    assert labels.tolist() == [2, 2, 1, 0]


def test_batches_say_their_bucket_and_the_loader_counts_them():
    loader = Loader(Numbered([4] * 8, [0] * 24 + [1] * 8), ("number",), collate, BatchPlan(4), seed=0)
    assert {bucket.height: rows for bucket, rows in loader.buckets.items()} == {64: 24, 65: 8}
    for step in loader.steps(0, 8):
        for micro in step:
            assert all((64 if number < 24 else 65) == micro.bucket.height for number in micro.batch["number"])
