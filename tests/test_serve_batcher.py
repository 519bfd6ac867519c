"""The batcher: real batches, no mixing, no hanging, no one punished for another's fault."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from serve.batcher import Batched, Batcher


class Recorder:
    """Squares numbers, batch by batch, and remembers the batches; can be held to let a queue build up."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Event()
        self.running = 0

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.running += 1
        assert self.running == 1, "two forward passes at once"
        self.started.set()
        self.gate.wait(5)
        self.batches.append(list(items))
        self.running -= 1
        if 13 in items:
            raise ArithmeticError("thirteen")
        return [item * item for item in items]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def run(recorder: Recorder, scenario: Callable[[Batcher[int, int]], Coroutine[Any, Any, Any]], **options: Any) -> Any:
    async def main() -> Any:
        settings = {"max_batch_size": 4, "wait_s": 0.05, "key": lambda item: item >= 100} | options
        batcher: Batcher[int, int] = Batcher(recorder, **settings)
        try:
            return await asyncio.wait_for(scenario(batcher), 10)
        finally:
            await batcher.close()

    return asyncio.run(main())


async def held_back_by(recorder: Recorder, batcher: Batcher[int, int], item: int) -> "asyncio.Task[Batched[int]]":
    """Occupy the batcher with `item` until the recorder's gate opens."""
    recorder.gate.clear()
    task = asyncio.create_task(batcher.submit(item))
    await asyncio.to_thread(recorder.started.wait, 5)
    return task


def test_concurrent_items_share_a_batch_and_get_their_own_results(recorder: Recorder) -> None:
    async def scenario(batcher: Batcher[int, int]) -> list[Batched[int]]:
        return await asyncio.gather(*(batcher.submit(item) for item in (1, 2, 3, 4)))

    results = run(recorder, scenario)
    assert [result.result for result in results] == [1, 4, 9, 16]
    assert {result.batch_size for result in results} == {4}
    assert recorder.batches == [[1, 2, 3, 4]]


def test_what_arrives_during_a_batch_makes_the_next_one_up_to_its_limit(recorder: Recorder) -> None:
    async def scenario(batcher: Batcher[int, int]) -> None:
        first = await held_back_by(recorder, batcher, 1)
        others = [asyncio.create_task(batcher.submit(item)) for item in range(2, 8)]
        await asyncio.sleep(0)
        recorder.gate.set()
        await asyncio.gather(first, *others)

    run(recorder, scenario)
    assert recorder.batches == [[1], [2, 3, 4, 5], [6, 7]]


def test_items_of_another_shape_are_never_mixed_in_and_the_oldest_goes_first(recorder: Recorder) -> None:
    async def scenario(batcher: Batcher[int, int]) -> None:
        await asyncio.gather(*(batcher.submit(item) for item in (1, 100, 2, 101)))

    run(recorder, scenario)
    assert recorder.batches == [[1, 2], [100, 101]]


def test_one_bad_item_fails_alone(recorder: Recorder) -> None:
    async def scenario(batcher: Batcher[int, int]) -> list[Any]:
        return await asyncio.gather(*(batcher.submit(item) for item in (1, 13, 3, 4)), return_exceptions=True)

    one, thirteen, three, four = run(recorder, scenario)
    assert (one.result, three.result, four.result) == (1, 9, 16)
    assert isinstance(thirteen, ArithmeticError)


def test_a_caller_that_left_before_the_batch_started_is_not_computed_for(recorder: Recorder) -> None:
    async def scenario(batcher: Batcher[int, int]) -> None:
        first = await held_back_by(recorder, batcher, 1)
        leaving, staying = (asyncio.create_task(batcher.submit(item)) for item in (2, 3))
        await asyncio.sleep(0)
        leaving.cancel()
        recorder.gate.set()
        await asyncio.gather(first, staying)

    run(recorder, scenario)
    assert recorder.batches == [[1], [3]]


def test_a_caller_that_leaves_during_its_batch_disturbs_nobody(recorder: Recorder) -> None:
    async def scenario(batcher: Batcher[int, int]) -> Batched[int]:
        first = await held_back_by(recorder, batcher, 1)
        first.cancel()
        recorder.gate.set()
        return await batcher.submit(5)

    assert run(recorder, scenario).result == 25


def test_closing_lets_no_caller_hang(recorder: Recorder) -> None:
    async def scenario(batcher: Batcher[int, int]) -> list[Any]:
        first = await held_back_by(recorder, batcher, 1)
        second = asyncio.create_task(batcher.submit(2))
        await asyncio.sleep(0)
        await batcher.close()
        recorder.gate.set()
        return list(await asyncio.gather(first, second, return_exceptions=True))

    assert all(isinstance(result, asyncio.CancelledError) for result in run(recorder, scenario))
