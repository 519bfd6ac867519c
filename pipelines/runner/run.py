"""What every table-making pipeline does: plan, run what is left, pack, publish. The pipelines say only what a unit is.

    planned items -> those not done yet -> units -> Ray Data graph, which commits parts -> shards -> index, manifest

Killed anywhere and started again, it continues: what is done is told by the parts themselves (see data/tables/ledger).
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
"""Much of packing is waiting for storage."""
_PACK_BYTES = 512 << 20
"""Declared for packing a shard: a few row groups at a time."""
_UNITS_AT_ONCE = 8192
"""Each is a block of Ray Data, whose driver holds them all; workers start anew for the next so many."""
_MAX_LIMIT_S = 86_400
_CHAINED = "The above exception was the direct cause"
_USER_ERRORS = {error.__name__ for error in (UserError, StorageError, CredentialsError)}

Graph = Callable[["ray.data.Dataset", int], tuple["ray.data.Dataset", Sequence[int]]]
"""Given units, one a row, and their number: the graph that commits each and returns its `record`, and how many workers
each of its operators has."""


@dataclass(frozen=True)
class RunOptions:
    """How a run treats what goes wrong, and how large its shards are."""

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
    """What a pipeline wants done."""

    name: str
    """Of the step, e.g. "encode"."""
    unit: str
    """Plural name of an item, e.g. "clips"."""
    size: BatchLimits
    graph: Graph
    operators: tuple[str, ...]
    """Facts that hold the seconds of each operator, in the order of the graph, e.g. ("decode_s", "encode_s")."""


class Fingerprint:
    """Hash of a stream of items, taken while it passes."""

    def __init__(self, *parts: object) -> None:
        self._digest = hashlib.sha256(repr(parts).encode())

    def over(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the batches as they are."""
        for batch in batches:
            for item_id in batch["item_id"].to_pylist():
                self._digest.update(item_id.encode() + b"\n")
            yield batch

    def value(self) -> str:
        """Return the hash of what has passed."""
        return self._digest.hexdigest()[:20]


def run_pending(
    ledger: Ledger,
    work: Work,
    options: RunOptions,
    progress: Progress,
    lost_before: Sequence[pa.RecordBatch] = (),
) -> int:
    """Run what the planned items still lack; return how many items have ended now.

    Args:
        ledger: with the planned items.
        work: what to do with them.
        options: how what goes wrong is treated.
        progress: where to show it.
        lost_before: as for `Ledger.publish`.

    Raises:
        UserError: too many items fail, which are in errors.parquet then; or storage does.
        RuntimeError: a worker met an error that is no item's own.
    """
    if ledger.lease is not None:
        remove_abandoned_plans(ledger.uri, ledger.lease)
    units = write_plan(ledger.uri, ledger.pending(retry_failed=options.retry_failed), ledger.identity, work.size)
    num_items = sum(unit.num_items for unit in units)
    if units:
        cluster.connect()
        settings = {**asdict(options), "cpus": cluster.total().cpus, "gpus": cluster.total().gpus}
        log = RunLog(ledger.uri, work.name, work.unit, num_items, settings)
        before = ledger.counts() if options.retry_failed else {OK: 0, FILTERED: 0}
        errors = storage.join(ledger.uri, ERRORS_NAME)
        breaker = FailureBreaker(options.max_failure_rate, errors=errors, done_well=before[OK] + before[FILTERED])
        try:
            with progress.task(work.name, total=num_items, unit=work.unit) as task, log:
                _run(units, ledger, work, breaker, task, log)
        except TooManyFailuresError:
            # Not published: readers see the table as it was.
            ledger.write_outcomes(FAILED, ERRORS_NAME, lost_before)
            raise
    remove_plan(units)
    return num_items


def _run(
    units: Sequence[WorkItemBatch], ledger: Ledger, work: Work, breaker: FailureBreaker, task: Task, log: RunLog
) -> None:
    import ray.exceptions

    counts = dict.fromkeys((OK, FILTERED, FAILED), 0)
    seconds = dict.fromkeys(work.operators, 0.0)
    try:
        for record, slowest in _records(units, work):
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


def _records(units: Sequence[WorkItemBatch], work: Work) -> Iterator[tuple[PartRecord, str | None]]:
    """Run the graph; yield what each unit has left, and the operator that holds the others up at the time."""
    import ray.data

    for start in range(0, len(units), _UNITS_AT_ONCE):
        rows = [unit.as_row() for unit in units[start : start + _UNITS_AT_ONCE]]
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
    """Return the class and the sentence, without its full stop, of what a worker raised itself.

    Ray Data's own error comes from that one, and all that travels of it is the text of both.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    above = [number for number, line in enumerate(lines) if line.startswith(_CHAINED)]
    last = lines[above[-1] - 1] if above else lines[-1] if lines else type(error).__name__
    kind, _, reason = last.partition(": ")
    name = kind.rsplit(".", 1)[-1]
    return (name, reason.rstrip(".")) if name in _USER_ERRORS else ("", last.rstrip("."))


def pack(ledger: Ledger, options: RunOptions, progress: Progress) -> None:
    """Pack the parts that no shard holds yet; a few here, many on the cluster."""
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
        # Ray's own text is a stack of lines.
        raise error.cause if isinstance(error.cause, UserError) else error  # noqa: B904 - it comes from nothing else


def is_unchanged(ledger: Ledger, input_fingerprint: str) -> bool:
    """Tell whether the published table is of exactly this input, and nothing is left to do for it."""
    published = ledger.published()
    return published.get("input_fingerprint") == input_fingerprint and published.get("identity") == ledger.identity
