"""Batches in an order that is a pure function of (seed, sample counter).

So resuming needs one integer and no replay, and the order is the same for any number of workers: at each step the
workers share the samples [counter, counter + global batch) out among themselves.
"""

import functools
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from videogen.errors import UserError

if TYPE_CHECKING:
    import torch

    from videogen.data import ClipDataset

_PREFETCHED_STEPS = 2


def sample_index(counter: int, seed: int, length: int) -> int:
    """Return which of `length` clips is the `counter`-th sample of the run: every clip once an epoch, shuffled."""
    epoch, position = divmod(counter, length)
    return int(_shuffled(seed, epoch, length)[position])


@functools.lru_cache(maxsize=4)
def _shuffled(seed: int, epoch: int, length: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(length)


@dataclass(frozen=True)
class BatchPlan:
    """How a global batch is shared out; refuses sizes that do not divide."""

    global_batch: int
    """Clips of one optimizer step over all workers."""
    accumulation: int = 1
    """Forward and backward passes of one optimizer step."""
    world_size: int = 1
    rank: int = 0

    def __post_init__(self) -> None:
        parts = self.world_size * self.accumulation
        if self.global_batch % parts:
            raise UserError(
                f"batch_size {self.global_batch} does not divide by num_workers {self.world_size} x "
                f"gradient_accumulation_steps {self.accumulation} = {parts}: use a multiple of {parts}."
            )

    @property
    def micro_batch(self) -> int:
        """Clips of one forward pass on one worker."""
        return self.global_batch // (self.world_size * self.accumulation)

    def micro_counters(self, samples_seen: int) -> list[range]:
        """Return the sample counters of this worker's forward passes in the step that begins at `samples_seen`."""
        first = samples_seen + self.rank * self.accumulation * self.micro_batch
        starts = (first + index * self.micro_batch for index in range(self.accumulation))
        return [range(start, start + self.micro_batch) for start in starts]


@dataclass(frozen=True)
class MicroBatch:
    """What one forward pass reads."""

    batch: dict[str, "torch.Tensor"]
    first_counter: int
    """Sample counter of the first clip; seeds the noise."""


class Loader:
    """Iterate over optimizer steps: one list of micro-batches each, read ahead by a thread."""

    def __init__(
        self,
        dataset: "ClipDataset",
        fields: Sequence[str],
        collate: Callable[[list[dict[str, Any]]], dict[str, "torch.Tensor"]],
        plan: BatchPlan,
        seed: int,
        num_readers: int = 1,
    ) -> None:
        if len(dataset) == 0:
            raise UserError("The training data holds no clips: encode some first, or check --data.")
        self._dataset, self._fields, self._collate = dataset, tuple(fields), collate
        self.plan, self._seed, self._num_readers = plan, seed, num_readers
        self.wait_s = 0.0
        """Seconds that the loop has waited for data so far."""

    def steps(self, samples_seen: int, num_steps: int) -> Iterator[list[MicroBatch]]:
        """Yield `num_steps` steps from the sample counter on. Reading errors surface here."""
        ready: queue.Queue[list[MicroBatch] | BaseException] = queue.Queue(maxsize=_PREFETCHED_STEPS)
        stopped = threading.Event()
        starts = [samples_seen + index * self.plan.global_batch for index in range(num_steps)]
        reader = threading.Thread(target=self._read, args=(starts, ready, stopped), name="loader", daemon=True)
        reader.start()
        try:
            for _ in starts:
                waiting = time.perf_counter()
                item = ready.get()
                self.wait_s += time.perf_counter() - waiting
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stopped.set()
            reader.join()

    def _read(self, starts: Sequence[int], ready: "queue.Queue[Any]", stopped: threading.Event) -> None:
        with ThreadPoolExecutor(self._num_readers, thread_name_prefix="clip-reader") as pool:
            for start in starts:
                try:
                    item: Any = [self._micro_batch(counters, pool) for counters in self.plan.micro_counters(start)]
                except Exception as error:  # noqa: BLE001 - whatever it is, the training thread raises it
                    item = error
                if not _put(ready, item, stopped) or isinstance(item, BaseException):
                    return

    def _micro_batch(self, counters: range, pool: ThreadPoolExecutor) -> MicroBatch:
        indices = [sample_index(counter, self._seed, len(self._dataset)) for counter in counters]
        rows = list(pool.map(self._dataset.row, indices, itertools.repeat(self._fields)))
        return MicroBatch(self._collate(rows), counters.start)


def _put(ready: "queue.Queue[Any]", item: Any, stopped: threading.Event) -> bool:
    """Put `item` unless the consumer has gone away."""
    while not stopped.is_set():
        try:
            ready.put(item, timeout=0.1)
        except queue.Full:
            continue
        return True
    return False
