"""Resumable run of a pipeline that writes a table.

    planned items -> pending items -> batches -> Ray Data graph, which commits parts -> shards -> index, manifest

A killed run continues when it is started again: committed parts record which items are done (see data/tables/ledger).
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipelines import cluster
from pipelines.cluster.pools import affordable
from pipelines.cluster.progress import Progress, Task
from pipelines.runner.bottleneck import Bottleneck
from pipelines.runner.failure_breaker import FailureBreaker, TooManyFailuresError
from pipelines.runner.plan import BatchLimits, WorkItemBatch, remove_abandoned_plans, remove_plan, write_plan
from videogen import storage
from videogen.data.tables import ERRORS_NAME, FAILED, FILTERED, OK, Ledger, Pack, PartRecord, pack_shard
from videogen.errors import CredentialsError, StorageError, UserError
from videogen.reporting.run_log import RunLog

if TYPE_CHECKING:
    import ray.data

logger = logging.getLogger(__name__)

FILTERED_NAME = "filtered.parquet"
SHARD_BYTES = 256 << 20
_PACKS_AT_ONCE = 64
_PACK_CPUS = 0.5
"""Packing mostly waits for storage."""
_PACK_BYTES = 512 << 20
"""Declared for packing a shard: a few row groups at a time."""
BATCHES_AT_ONCE = 8192
"""Batches per Ray Data graph, whose driver holds one block for each."""
_MAX_LIMIT_S = 86_400
_CHAINED = "The above exception was the direct cause"
_USER_ERRORS = {error.__name__ for error in (UserError, StorageError, CredentialsError)}

Graph = Callable[["ray.data.Dataset", int], tuple["ray.data.Dataset", Sequence[int]]]
"""Function from batches (one per row) and their number to the graph that commits each and returns its `record`, and the
number of workers of each operator."""


@dataclass(frozen=True)
class RunOptions:
    """Handling of failures, and size of shards."""

    retry_failed: bool = False
    """Whether items that failed in earlier runs are tried again."""
    max_failure_rate: float = 0.5
    """Share of failed items, 0..1, above which a run is stopped early."""
    shard_bytes: int = SHARD_BYTES
    replace: bool = False
    """Whether a finished table that was made with other settings may be replaced."""
    limit_s: float = 60.0
    """Seconds that a small video may take before its reader is killed; large ones get more."""

    def __post_init__(self) -> None:
        if not 0 < self.limit_s <= _MAX_LIMIT_S:
            raise UserError(f"--video-limit is {self.limit_s}, but it is seconds, above 0 and up to {_MAX_LIMIT_S}.")
        if not 0 <= self.max_failure_rate <= 1:
            raise UserError(f"--max-failure-rate is {self.max_failure_rate}, but it is a share from 0 to 1.")
        if self.shard_bytes < 1 << 20:
            raise UserError(f"Shards of {self.shard_bytes} bytes are too small: use at least 1 MiB.")


@dataclass(frozen=True)
class Work:
    """Work of a pipeline for the runner."""

    name: str
    """Of the step, e.g. "encode"."""
    unit: str
    """Plural name of an item, e.g. "clips"."""
    size: BatchLimits
    graph: Graph
    operators: tuple[str, ...]
    """Metrics with the seconds of each operator, in the order of the graph, e.g. ("decode_s", "encode_s")."""


class Fingerprint:
    """Streaming hash of item ids."""

    def __init__(self, *parts: object) -> None:
        self._digest = hashlib.sha256(repr(parts).encode())

    def over(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the batches unchanged, hashing their item ids."""
        for batch in batches:
            for item_id in batch["item_id"].to_pylist():
                self._digest.update(item_id.encode() + b"\n")
            yield batch

    def value(self) -> str:
        """Return the hash of all ids so far."""
        return self._digest.hexdigest()[:20]


def run_pending(
    ledger: Ledger,
    work: Work,
    options: RunOptions,
    progress: Progress,
    lost_before: Sequence[pa.RecordBatch] = (),
) -> int:
    """Process the pending items; return their number.

    Args:
        ledger: ledger with the planned items.
        work: graph and batch limits.
        options: handling of failures.
        progress: progress display.
        lost_before: see `Ledger.publish`.

    Raises:
        UserError: too many items failed (errors.parquet lists them), or storage failed.
        RuntimeError: a worker failed for a reason that is not a single item's.
    """
    if ledger.lease is not None:
        remove_abandoned_plans(ledger.uri, ledger.lease)
    batches = write_plan(ledger.uri, ledger.pending(retry_failed=options.retry_failed), ledger.identity, work.size)
    num_items = sum(batch.num_items for batch in batches)
    if batches:
        cluster.connect()
        settings = {**asdict(options), "cpus": cluster.total().cpus, "gpus": cluster.total().gpus}
        log = RunLog(ledger.uri, work.name, work.unit, num_items, settings)
        before = ledger.counts() if options.retry_failed else {OK: 0, FILTERED: 0}
        errors = storage.join(ledger.uri, ERRORS_NAME)
        breaker = FailureBreaker(options.max_failure_rate, errors=errors, done_well=before[OK] + before[FILTERED])
        try:
            with progress.task(work.name, total=num_items, unit=work.unit) as task, log:
                _run(batches, ledger, work, breaker, task, log)
        except TooManyFailuresError:
            # Readers keep seeing the previous version of the table.
            ledger.write_outcomes(FAILED, ERRORS_NAME, lost_before)
            raise
    remove_plan(batches)
    return num_items


def _run(
    batches: Sequence[WorkItemBatch], ledger: Ledger, work: Work, breaker: FailureBreaker, task: Task, log: RunLog
) -> None:
    import ray.exceptions

    counts = dict.fromkeys((OK, FILTERED, FAILED), 0)
    seconds = dict.fromkeys(work.operators, 0.0)
    try:
        for record, slowest in _records(batches, work):
            ledger.add([record])
            for outcome in record.outcomes:
                counts[outcome.status] += 1
            for name in seconds:
                seconds[name] += record.metrics.get(name, 0.0)
            task.advance(len(record.outcomes))
            task.update(detail=_detail(counts, slowest))
            log.sample(counts, seconds)
            breaker.add(record.outcomes)
    except ray.exceptions.RayError as error:
        kind, reason = _cause(error)
        if kind in _USER_ERRORS:
            raise UserError(f"{work.name} stopped: {reason}.") from error
        raise RuntimeError(f"{work.name} stopped: {reason}; run the same command again to continue") from error


def _records(batches: Sequence[WorkItemBatch], work: Work) -> Iterator[tuple[PartRecord, str | None]]:
    """Run the graph; yield the record of each batch, and the current bottleneck."""
    import ray.data

    for start in range(0, len(batches), BATCHES_AT_ONCE):
        rows = [batch.as_row() for batch in batches[start : start + BATCHES_AT_ONCE]]
        graph, workers = work.graph(ray.data.from_items(rows, override_num_blocks=len(rows)), len(rows))
        bottleneck = Bottleneck(dict(zip(work.operators, workers, strict=True)))
        for row in graph.iter_rows():
            record = PartRecord.from_json(row["record"])
            bottleneck.add(record.metrics)
            yield record, bottleneck.operator


def _detail(counts: Mapping[str, int], slowest: str | None) -> str:
    said = ", ".join(f"{count} {status}" for status, count in counts.items() if count or status == OK)
    return f"{said}, waiting for {slowest}" if slowest else said


def _cause(error: BaseException) -> tuple[str, str]:
    """Return class and message of the original exception of a worker.

    Ray Data wraps it, and only the text of both exceptions travels.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    above = [number for number, line in enumerate(lines) if line.startswith(_CHAINED)]
    last = lines[above[-1] - 1] if above else lines[-1] if lines else type(error).__name__
    kind, _, reason = last.partition(": ")
    name = kind.rsplit(".", 1)[-1]
    return (name, reason.rstrip(".")) if name in _USER_ERRORS else ("", last.rstrip("."))


def pack(ledger: Ledger, options: RunOptions, progress: Progress) -> None:
    """Pack parts into shards: a single shard in this process, several on the cluster."""
    packs = ledger.plan_packs(options.shard_bytes)
    if not packs:
        return
    with progress.task("pack", total=len(packs), unit="shards") as task:
        if len(packs) == 1:
            pack_shard(ledger.uri, packs[0])
            task.advance()
            return
        for _ in _packed(ledger.uri, packs):
            task.advance()


def _packed(uri: str, packs: Sequence[Pack]) -> Iterator[None]:
    import ray

    cluster.connect()
    remote = ray.remote(num_cpus=_PACK_CPUS, memory=affordable(_PACK_BYTES))(pack_shard)
    waiting: list[Any] = []
    try:
        for one in packs:
            waiting.append(remote.remote(uri, one))
            if len(waiting) >= _PACKS_AT_ONCE:
                done, waiting = ray.wait(waiting)
                ray.get(done)
                yield from [None] * len(done)
        for reference in waiting:
            ray.get(reference)
            yield None
    except ray.exceptions.RayTaskError as error:
        # Ray's own message is a traceback.
        raise error.cause if isinstance(error.cause, UserError) else error  # noqa: B904 - it comes from nothing else


def is_unchanged(ledger: Ledger, input_fingerprint: str) -> bool:
    """Return whether the published table was made from exactly this input."""
    published = ledger.published()
    return published.get("input_fingerprint") == input_fingerprint and published.get("identity") == ledger.identity
