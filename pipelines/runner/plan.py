"""Plan of a run: batches of work items, written to files by the driver and read one by one by workers.

A batch is done or not done as a whole. Its items are a row group of a plan file; only the number of that row group
travels through Ray, so neither driver nor workers hold the whole plan.
"""

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from videogen import storage
from videogen.data.tables import ATTEMPTS_BEFORE, ITEM_ID, Lease
from videogen.hashing import content_hash

_FOLDER = "plan"
_PLAN_FILE = re.compile(rf"\.?[0-9a-f]{{12}}-\d{{5}}\.parquet(\.[0-9a-f]+{re.escape(storage.PARTIAL)})?")
_BATCHES_PER_FILE = 256
"""A worker reads the whole footer of a file for each of its batches."""


@dataclass(frozen=True)
class WorkItemBatch:
    """One batch of work items of a plan."""

    unit_id: str
    plan: str
    """URI of the file that holds its items."""
    group: int
    """Their row group there."""
    num_items: int

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Return the batch of a row of `as_row`."""
        return cls(row["unit_id"], row["plan"], row["group"], row["num_items"])

    def as_row(self) -> dict[str, Any]:
        """Return the batch as a row of a Ray dataset."""
        return dict(vars(self))

    def items(self) -> list[dict[str, Any]]:
        """Read the items in the order of the plan."""
        filesystem, path = storage.arrow_filesystem(self.plan)
        with filesystem.open_input_file(path) as file, pq.ParquetFile(file) as plan:
            rows: list[dict[str, Any]] = plan.read_row_group(self.group).to_pylist()
            return rows


@dataclass(frozen=True)
class BatchLimits:
    """Upper limits of a batch of work items."""

    items: int
    weight: float = float("inf")
    """Sum of the column `weight`, if the items have one; a heavier item is a batch of its own."""


def write_plan(
    table_uri: str, batches: Iterator[pa.RecordBatch], identity: str, size: BatchLimits, limit: int | None = None
) -> list[WorkItemBatch]:
    """Group items in order into batches, write them to plan files, and return the batches.

    Args:
        table_uri: folder of the table, which holds the plan during a run.
        batches: record batches of items, all of one schema, with `item_id` and optionally `weight`.
        identity: identity of the table; with the items it determines the batch ids.
        size: limits of a batch.
        limit: maximum number of batches.
    """
    folder = storage.join(table_uri, _FOLDER)
    planned: list[WorkItemBatch] = []
    groups = _groups(batches, size)
    run = uuid.uuid4().hex[:12]
    group = next(groups, None)
    while group is not None and (limit is None or len(planned) < limit):
        uri = storage.join(folder, f"{run}-{len(planned) // _BATCHES_PER_FILE:05d}.parquet")
        with storage.atomic_stream(uri) as file, pq.ParquetWriter(file, group.schema) as writer:
            for number in range(_BATCHES_PER_FILE):
                if group is None or (limit is not None and len(planned) >= limit):
                    break
                writer.write_table(group, row_group_size=len(group))
                planned.append(WorkItemBatch(_unit_id(identity, group), uri, number, len(group)))
                group = next(groups, None)
    return planned


def remove_plan(planned: Sequence[WorkItemBatch]) -> None:
    """Remove the plan files of `write_plan`; those of other runs stay."""
    storage.remove_files(sorted({batch.plan for batch in planned}))


def remove_abandoned_plans(table_uri: str, lease: Lease) -> None:
    """Remove the plans of killed runs, which are older than this run's lease.

    Raises:
        UserError: another run has taken over the table.
    """
    filesystem, folder = storage.fsspec_filesystem(storage.join(table_uri, _FOLDER))
    try:
        entries = filesystem.ls(folder, detail=True)
    except FileNotFoundError:
        return
    # Users may keep files of their own in a folder of this name.
    own = [entry for entry in entries if _PLAN_FILE.fullmatch(entry["name"].rsplit("/", 1)[-1])]
    old = [entry["name"].rsplit("/", 1)[-1] for entry in own if storage.modified_at(entry) < lease.since]
    if old:
        lease.require()
        storage.remove_files([storage.join(table_uri, _FOLDER, name) for name in old])


def _unit_id(identity: str, items: pa.Table) -> str:
    """Return the id of a batch; a retry gets another id, so the record of the first attempt is kept."""
    ids = items[ITEM_ID].to_pylist()
    tried = items[ATTEMPTS_BEFORE].to_pylist() if ATTEMPTS_BEFORE in items.schema.names else []
    again = any(one is not None for one in tried)
    return content_hash(identity, ids, tried) if again else content_hash(identity, ids)


def _groups(batches: Iterator[pa.RecordBatch], size: BatchLimits) -> Iterator[pa.Table]:
    pending: list[pa.RecordBatch] = []
    items, weight = 0, 0.0
    for batch in batches:
        weights = batch["weight"].to_pylist() if "weight" in batch.schema.names else [0] * len(batch)
        start = 0
        for index, one in enumerate(weights):
            if items and (items >= size.items or weight + (one or 0) > size.weight):
                pending.append(batch.slice(start, index - start))
                yield pa.Table.from_batches(pending)
                pending, start, items, weight = [], index, 0, 0.0
            items += 1
            weight += one or 0
        pending.append(batch.slice(start))
    if items:
        yield pa.Table.from_batches(pending)
