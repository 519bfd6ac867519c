"""Data loader: batches in an order that is a pure function of (seed, data, sample counter).

Resuming needs one integer and no replay, and the order is the same for any number of workers: at each step the workers
divide the samples [counter, counter + global batch) among themselves. `videogen.training.buckets` maps samples to rows.
Threads read clips a few steps ahead of training.
"""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from videogen.errors import UserError
from videogen.training.buckets import Batches, Bucket
from videogen.training.order import SHUFFLE_BUFFER, epoch_order

if TYPE_CHECKING:
    import torch

    from videogen.data.datasets.dataset import ClipDataset

logger = logging.getLogger(__name__)

_PREFETCHED_STEPS = 2


def sample_index(counter: int, seed: int, length: int) -> int:
    """Return the `counter`-th sample of a run on `length` clips: every clip once an epoch, shuffled.

    For tables of one shape that fit into the shuffle buffer; `Batches` covers all tables.
    """
    epoch, position = divmod(counter, length)
    return int(epoch_order((seed, epoch), length, shuffle_buffer=length)[position])


@dataclass(frozen=True)
class BatchPlan:
    """Division of a global batch into workers and passes; refuses sizes that do not divide."""

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
    """Input of one forward pass."""

    batch: dict[str, "torch.Tensor"]
    first_counter: int
    """Sample counter of the first clip; seeds the noise."""
    bucket: Bucket | None = None
    """Shape that its clips have in common, if the dataset provides shapes."""


class Loader:
    """Iterate over optimizer steps: one list of micro-batches each, read ahead by threads.

    Args:
        dataset: clips by number.
        fields: columns that are read of each clip.
        collate: turns rows into a batch; runs in a thread.
        plan: this worker's part of a global batch.
        seed: seed of the order.
        num_readers: threads that read clips.
        shuffle_buffer: clips among which the order is fully random. Each block of rows is read once an epoch if the
            dataset caches `shuffle_buffer / num_workers` clips, and more often if it caches fewer.
        prefetch_steps: steps that are read ahead; this worker's clips of so many steps and one more are in memory.
    """

    def __init__(
        self,
        dataset: "ClipDataset",
        fields: Sequence[str],
        collate: Callable[[list[dict[str, Any]]], dict[str, "torch.Tensor"]],
        plan: BatchPlan,
        seed: int,
        num_readers: int = 1,
        shuffle_buffer: int = SHUFFLE_BUFFER,
        prefetch_steps: int = _PREFETCHED_STEPS,
    ) -> None:
        if len(dataset) == 0:
            raise UserError("The training data holds no clips: encode some first, or check --data and `where`.")
        self._dataset, self._fields, self._collate = dataset, tuple(fields), collate
        self.plan, self._num_readers, self._prefetch_steps = plan, num_readers, prefetch_steps
        self._batches = Batches(dataset, plan.global_batch, seed, shuffle_buffer)
        self._log_buckets()
        self.wait_s = 0.0
        """Seconds that the loop has waited for data so far."""

    @property
    def buckets(self) -> dict[Bucket | None, int]:
        """Clips by the shape of their batches; the key is None if the dataset does not provide shapes."""
        return self._batches.buckets

    def steps(self, samples_seen: int, num_steps: int) -> Iterator[list[MicroBatch]]:
        """Yield `num_steps` steps from the sample counter on. Reading errors surface here."""
        ready: queue.Queue[list[MicroBatch] | BaseException] = queue.Queue()
        stopped, slots = threading.Event(), threading.Semaphore(self._prefetch_steps)
        starts = [samples_seen + index * self.plan.global_batch for index in range(num_steps)]
        reader = threading.Thread(target=self._read, args=(starts, ready, slots, stopped), name="loader", daemon=True)
        reader.start()
        try:
            for _ in starts:
                waiting = time.perf_counter()
                item = ready.get()
                self.wait_s += time.perf_counter() - waiting
                if isinstance(item, BaseException):
                    raise item
                slots.release()
                yield item
        finally:
            stopped.set()
            slots.release()
            reader.join()

    def _read(
        self, starts: Sequence[int], ready: "queue.Queue[Any]", slots: threading.Semaphore, stopped: threading.Event
    ) -> None:
        """Queue one step after the other; a step holds a slot from the request of its clips until it is consumed."""
        pool = ThreadPoolExecutor(self._num_readers, thread_name_prefix="clip-reader")
        asked: deque[_Step] = deque()
        remaining = deque(starts)
        try:
            while (remaining or asked) and not stopped.is_set():
                # Request the clips of the next steps before waiting for those of this one.
                while remaining and slots.acquire(blocking=not asked):
                    if stopped.is_set():
                        return
                    asked.append(self._ask(remaining.popleft(), pool))
                ready.put(self._collect(asked.popleft()))
        except Exception as error:  # noqa: BLE001 - raised again by the training thread
            ready.put(error)
        finally:
            pool.shutdown(cancel_futures=True)

    def _ask(self, samples_seen: int, pool: ThreadPoolExecutor) -> "_Step":
        rows = self._batches.rows(samples_seen)
        counters = self.plan.micro_counters(samples_seen)
        reading = []
        for micro in counters:
            indices = rows[micro.start - samples_seen : micro.stop - samples_seen].tolist()
            # One task per reader and micro-batch: with one per clip, switching threads costs more than reading.
            shares = [indices[reader :: self._num_readers] for reader in range(self._num_readers)]
            reading.append([pool.submit(self._read_clips, share) for share in shares])
        return _Step([micro.start for micro in counters], reading, self._batches.bucket(samples_seen))

    def _read_clips(self, indices: list[int]) -> list[Any]:
        return [self._dataset.row(index, self._fields) for index in indices]

    def _collect(self, step: "_Step") -> list[MicroBatch]:
        batches = []
        for counter, shares in zip(step.first_counters, step.reading, strict=True):
            rows: list[Any] = [None] * self.plan.micro_batch
            for reader, share in enumerate(shares):
                rows[reader :: self._num_readers] = share.result()
            batches.append(MicroBatch(self._collate(rows), counter, step.bucket))
        return batches

    def _log_buckets(self) -> None:
        if len(self.buckets) > 1:
            for bucket, rows in self.buckets.items():
                logger.info("%d clips in batches of %s", rows, bucket)
        for bucket, rows in self.buckets.items():
            if rows < self.plan.global_batch:
                logger.warning(
                    "%d clips%s are fewer than a batch of %d: some come twice in one batch",
                    rows,
                    "" if bucket is None else f" of {bucket}",
                    self.plan.global_batch,
                )


@dataclass(frozen=True)
class _Step:
    """This worker's part of a step while its clips are being read."""

    first_counters: list[int]
    reading: list[list["Future[list[Any]]"]]
    """For each micro-batch, the clips of every reader: every `num_readers`-th clip."""
    bucket: Bucket | None
