"""Dynamic batching of concurrent calls of one stage, one forward pass at a time.

Ray Serve's own `@serve.batch` is not used: it hangs its callers when a batch is cancelled, mixes items that cannot
share a batch, runs batches whose callers have all cancelled, and fails all items for the error of one.
"""

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(eq=False)
class _Waiting(Generic[Item, Result]):
    """An item and the caller that awaits its result."""

    item: Item
    key: Hashable
    done: "asyncio.Future[Batched[Result]]"
    arrived: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Batched(Generic[Result]):
    """Result of an item, with size and duration of its batch."""

    result: Result
    batch_size: int
    seconds: float


class Batcher(Generic[Item, Result]):
    """Gathers items of equal key, oldest first, and runs each batch in a dedicated thread."""

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        max_batch_size: int,
        wait_s: float,
        key: Callable[[Item], Hashable],
    ) -> None:
        self._run = run
        self._max_batch_size = max_batch_size
        self._wait_s = wait_s
        self._key = key
        self._waiting: list[_Waiting[Item, Result]] = []
        self._arrival = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        # One thread: the event loop stays free for health checks, and two forward passes never share a device.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="stage")

    async def submit(self, item: Item) -> Batched[Result]:
        """Return the result for `item`; a caller that cancels before the batch starts is left out of it."""
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        entry = _Waiting(item, self._key(item), asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        self._arrival.set()
        return await entry.done

    async def close(self) -> None:
        """Cancel all waiting callers; a running forward pass ends by itself and its result is discarded."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        for entry in self._waiting:
            entry.done.cancel()
        self._waiting.clear()
        self._thread.shutdown(wait=False)

    async def _work(self) -> None:
        while True:
            batch = await self._gather()
            if batch:
                await self._run_isolated(batch)

    async def _gather(self) -> list[_Waiting[Item, Result]]:
        """Return the oldest item with others of its key, after waiting for a full batch for at most `wait_s`."""
        self._drop_cancelled()
        while not self._waiting:
            self._arrival.clear()
            await self._arrival.wait()
            self._drop_cancelled()
        oldest = self._waiting[0]
        while not oldest.done.cancelled():
            alike = [entry for entry in self._waiting if entry.key == oldest.key and not entry.done.cancelled()]
            remaining_s = oldest.arrived + self._wait_s - time.monotonic()
            if len(alike) >= self._max_batch_size or remaining_s <= 0:
                batch = alike[: self._max_batch_size]
                self._waiting = [entry for entry in self._waiting if entry not in batch]
                return batch
            self._arrival.clear()
            with_timeout = asyncio.wait_for(self._arrival.wait(), remaining_s)
            await asyncio.gather(with_timeout, return_exceptions=True)
        return []

    def _drop_cancelled(self) -> None:
        self._waiting = [entry for entry in self._waiting if not entry.done.cancelled()]

    async def _run_isolated(self, batch: list[_Waiting[Item, Result]]) -> None:
        """Run a batch; if it fails, run its halves, so that only the failing item gets the error."""
        batch = [entry for entry in batch if not entry.done.cancelled()]
        if not batch:
            return
        began = time.monotonic()
        try:
            results = await self._forward(batch)
        except asyncio.CancelledError:
            for entry in batch:
                entry.done.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - any error of a stage is passed to its caller
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._run_isolated(batch[:middle])
                await self._run_isolated(batch[middle:])
            elif not batch[0].done.cancelled():
                batch[0].done.set_exception(error)
            return
        seconds = time.monotonic() - began
        for entry, result in zip(batch, results, strict=True):
            if not entry.done.cancelled():
                entry.done.set_result(Batched(result, len(batch), seconds))

    async def _forward(self, batch: list[_Waiting[Item, Result]]) -> Sequence[Result]:
        items = [entry.item for entry in batch]
        results = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, items)
        if len(results) != len(items):
            raise RuntimeError(f"a batch of {len(items)} gave {len(results)} results")
        return results
