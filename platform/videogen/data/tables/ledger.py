"""The ledger of a table: which planned items are done, how they ended, and where their rows are.

    with Lease(uri) as lease, Ledger(uri, identity, lease) as ledger:
        for batch in ledger.pending(planned):     # plan -> what is left to do
            ...                                   # workers: record = write_part(uri, unit_id, rows, outcomes, identity)
            ledger.note([record])                 # as they report
        packs = ledger.plan_packs(256 << 20)      # workers: pack_shard(uri, pack), each pack anywhere
        ledger.publish(manifest, ledger.locate())

What is true, whoever is killed when:

- A part's footer is the record of its unit. `note` only saves the next run from reading many footers.
- Readers see a table change in one step, when `manifest.json` is replaced, after all that it names is there.
- An item counts once. Of several outcomes the best counts (ok, filtered, failed); of several that are ok the one that
  is published, then the one with the least part name; of failures the one with most attempts.
- An item is only ok while its rows are there: in a part, or in a shard.
- `publish` refuses unless planned = ok + filtered + failed.

Memory is flat: what grows with the number of items is on local disk (see scratch.py).
"""

import itertools
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from videogen import storage
from videogen.data.tables import garbage, segments
from videogen.data.tables.files import (
    ERRORS_NAME,
    MANIFEST_NAME,
    PARTS,
    SHARDS,
    SUFFIX,
    ForeignFileError,
    ignore,
    list_stems,
    read_records,
    remove_files,
)
from videogen.data.tables.index import write_index
from videogen.data.tables.lease import Lease
from videogen.data.tables.locate import Locator
from videogen.data.tables.outcome_log import OutcomeLog
from videogen.data.tables.packing import make_packs, read_shard_record
from videogen.data.tables.parts import part_uri, read_part_record
from videogen.data.tables.planned import PlannedItems
from videogen.data.tables.records import FAILED, ITEM_ID, STATUSES, Pack, PartRecord
from videogen.data.tables.scratch import MEMORY_MB, Scratch

ITEMS_PER_SEGMENT = 50_000
SECONDS_PER_SEGMENT = 60.0
_SEGMENTS_AT_MOST = 32
"""More are merged when the ledger is opened and when the table is published."""
_ROWS_PER_SEGMENT = 250_000

ERRORS_SCHEMA = pa.schema(
    [
        (ITEM_ID, pa.string()),
        ("uri", pa.string()),
        ("stage", pa.string()),
        ("error", pa.string()),
        ("attempts", pa.int32()),
        ("log_tail", pa.string()),
    ]
)


class Ledger:
    """What is known of a table's items; one driver at a time (see lease.py), any number of workers beside it.

    Args:
        table_uri: folder of the table; need not be there yet.
        identity: hash of all that decides an item's rows beside the item, letters and digits; items that were done
            under another identity are not done.
        lease: if given, `publish` and `collect_garbage` first make sure that it is still held.
        memory_mb: of the local database; the driver holds little else.
    """

    def __init__(self, table_uri: str, identity: str, lease: Lease | None = None, memory_mb: int = MEMORY_MB) -> None:
        if not identity.isalnum():
            raise ValueError(f"identity {identity!r} must be letters and digits: it becomes part of file names")
        self.uri = storage.absolute(table_uri)
        self.identity = identity
        self.lease = lease
        self._memory_mb = memory_mb
        self._log: OutcomeLog
        self._buffer: list[PartRecord] = []
        self._num_buffered = 0
        self._flushed = time.monotonic()
        self._segments: dict[str, int] = {}
        self._planned: PlannedItems | None = None
        self._packs: list[Pack] | None = None
        self._locator: Locator | None = None

    # --- opening and closing -------------------------------------------------------------------------------------

    def open(self) -> Self:
        """Read what earlier runs have left: segments, shards, and the footers of parts that no segment tells of.

        Files that are not whole, or not ours, are named in the log and otherwise treated as if they were not there.

        Raises:
            OSError: the storage does not answer; nothing is concluded from that.
        """
        scratch = Scratch(self._memory_mb)
        try:
            self._log = OutcomeLog(scratch)
            self._read_segments()
            self._read_shards()
            self._read_parts()
            self._merge_segments()
        except BaseException:
            scratch.close()
            raise
        return self

    def close(self) -> None:
        """Write down what was noted, and remove the local database."""
        try:
            self.flush()
        finally:
            self._log.scratch.close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _read_segments(self) -> None:
        for name in segments.list_segments(self.uri, self.identity):
            try:
                num_rows = 0
                for batch in segments.read_segment(self.uri, name):
                    self._log.add_outcomes(batch)
                    num_rows += batch.num_rows
                self._segments[name] = num_rows
            except ForeignFileError as error:
                ignore(segments.segment_uri(self.uri, name), error)

    def _read_shards(self) -> None:
        names = [f"{SHARDS}/{name}{SUFFIX}" for name in list_stems(storage.join(self.uri, SHARDS))]
        published = {shard["name"] for shard in self.published().get("shards", [])}
        records = read_records(names, lambda name: read_shard_record(self.uri, name))
        self._log.add_shards((record for record in records if record.identity == self.identity), published)

    def _read_parts(self) -> None:
        untold = self._log.add_listing(list_stems(storage.join(self.uri, PARTS)))
        for record in read_records([part_uri(self.uri, name) for name in untold], read_part_record):
            if record.identity == self.identity:
                self.note([record])

    def published(self) -> dict[str, Any]:
        """Return the manifest that readers see now; {} if none was published yet."""
        try:
            manifest: dict[str, Any] = storage.read_json(storage.join(self.uri, MANIFEST_NAME))
        except FileNotFoundError:
            return {}
        return manifest

    # --- what is done --------------------------------------------------------------------------------------------

    def note(self, records: Iterable[PartRecord]) -> None:
        """Take in what workers have committed; written down every so many items or seconds, by `flush` and `close`.

        Noting twice, or what was read when the ledger was opened, does no harm.
        """
        for record in records:
            if record.identity != self.identity:
                raise ValueError(f"part {record.name} is of identity {record.identity}, the ledger of {self.identity}")
            self._buffer.append(record)
            self._num_buffered += len(record.outcomes)
        late = time.monotonic() - self._flushed > SECONDS_PER_SEGMENT
        if late or self._num_buffered >= ITEMS_PER_SEGMENT:
            self.flush()

    def flush(self) -> None:
        """Write down what was noted since the last time, as one segment."""
        self._flushed = time.monotonic()
        if self._buffer:
            rows = segments.rows_of(self._buffer)
            self._segments[segments.write_segment(self.uri, self.identity, rows)] = rows.num_rows
            self._log.add_parts(rows)
            self._buffer, self._num_buffered = [], 0

    # --- what was planned ----------------------------------------------------------------------------------------

    def plan(self, items: Iterable[pa.RecordBatch]) -> None:
        """Take in the planned items, in canonical order; all that follows is about these.

        Args:
            items: batches of one schema with `item_id` (string, all different) and any other columns. They are kept on
                local disk, so the iterator is read once.

        Raises:
            UserError: an item is planned twice.
        """
        self._packs = None
        self._locator = None
        if self._planned is not None:
            self._planned.forget()
        self._planned = PlannedItems(self._log.scratch, items)

    def pending(
        self, items: Iterable[pa.RecordBatch] | None = None, retry_failed: bool = False
    ) -> Iterator[pa.RecordBatch]:
        """Return the planned items that have no outcome yet, in order, with all their columns.

        What is pending is decided by this call; notes taken while the result is read do not change it.

        Args:
            items: what is planned, as for `plan`; None: what was planned last.
            retry_failed: whether failed items are pending too.
        """
        plan = self._settled_plan(items)
        return (batch for batch, _ in plan.select(self._log.todo(retry_failed)))

    def missing(self, items: Iterable[pa.RecordBatch] | None = None) -> Iterator[pa.RecordBatch]:
        """Return the planned items that have no outcome; after a run that lost nothing there are none."""
        return self.pending(items)

    def counts(self) -> dict[str, int]:
        """Return the number of planned items, and of those that ended "ok", "filtered" and "failed".

        One pass over all of them, and what was noted is written down first: not meant for a line of progress.
        """
        self._settled_plan()
        return self._log.counts()

    def require_complete(self) -> dict[str, int]:
        """Return `counts`.

        Raises:
            RuntimeError: planned items without an outcome; it names the first of them.
        """
        counts = self.counts()
        num_missing = counts["planned"] - sum(counts[status] for status in STATUSES)
        if num_missing:
            ids = itertools.chain.from_iterable(batch[ITEM_ID].to_pylist() for batch in self.missing())
            named = ", ".join(itertools.islice(ids, 5))
            raise RuntimeError(
                f"{num_missing} of the {counts['planned']} planned items of {self.uri!r} have no outcome, among them "
                f"{named}: run the same job again, it does only these"
            )
        return counts

    def outcomes(self, status: str) -> Iterator[pa.RecordBatch]:
        """Return the planned items that ended so, in order, with the columns of `ERRORS_SCHEMA`."""
        plan = self._settled_plan()
        chosen = plan.select(self._log.told(status))
        return (rows.drop_columns("ordinal").cast(ERRORS_SCHEMA).combine_chunks().to_batches()[0] for _, rows in chosen)

    def failures(self) -> Iterator[pa.RecordBatch]:
        """Return the planned items that failed, in order, as errors.parquet has them."""
        return self.outcomes(FAILED)

    def write_outcomes(self, status: str, name: str, before: Iterable[pa.RecordBatch] = ()) -> None:
        """Write the planned items that ended in `status` as the file `name`, after rows of others."""
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, ERRORS_SCHEMA, compression="zstd") as writer:
            for batch in itertools.chain(before, self.outcomes(status)):
                writer.write_batch(batch)
        storage.write_if_changed(storage.join(self.uri, name), sink.getvalue().to_pybytes())

    def facts(self) -> dict[str, float]:
        """Return the sums of the facts of all parts that hold an outcome that counts."""
        self._settle()
        return self._log.facts()

    def _settle(self) -> None:
        self.flush()
        self._log.settle()

    def _settled_plan(self, items: Iterable[pa.RecordBatch] | None = None) -> PlannedItems:
        if items is not None:
            self.plan(items)
        if self._planned is None:
            raise RuntimeError("give the planned items first: Ledger.plan(items) or Ledger.pending(items)")
        self._settle()
        return self._planned

    # --- packing and publishing ----------------------------------------------------------------------------------

    def plan_packs(self, target_bytes: int) -> list[Pack]:
        """Return the shards that are still to be packed, each to be given to `pack_shard` in any process.

        The parts of all planned items that are ok are packed, in the order of their names, but for those in published
        shards. The same parts always give the same shards, so an interrupted packing is continued: shards that are
        there already are not returned.

        Args:
            target_bytes: size of a shard.
        """
        self._settled_plan()
        self._packs = make_packs(self._log.parts_to_pack(), target_bytes, self.identity)
        self._locator = None
        there = self._log.shards_there()
        return [pack for pack in self._packs if pack.name not in there]

    def locate(self, columns: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        """Return the rows of the index: planned items that are ok, in order, and where their rows are.

        An item with several rows is there as often. To be called after `plan_packs` and the packing of all packs.

        Args:
            columns: of the shards' rows, to be added to each (scalars; one pass over these columns of all shards).

        Returns:
            Batches with the planned columns, then `columns`, then `shard` int32, place in the manifest's "shards", and
            `row` int32, place in that shard.

        Raises:
            RuntimeError: not everything is packed.
        """
        if self._packs is None:
            raise RuntimeError("Ledger.plan_packs comes before Ledger.locate")
        plan = self._settled_plan()
        self._locator = Locator(self._log, self.uri, self._packs, self.published())
        return self._locator.rows(plan, columns)

    def publish(
        self, manifest: Mapping[str, Any], index: Iterable[pa.RecordBatch], lost_before: Iterable[pa.RecordBatch] = ()
    ) -> dict[str, Any]:
        """Make the table what readers see: index, errors.parquet, and at last the manifest, in one step.

        Readers of an earlier manifest go on reading what it names, but for errors.parquet, which is replaced.
        Then the parts that are now in published shards, or have no row that counts, are removed: no reader knows of
        parts, and how their items ended is in segments, which are read back before. With a lease, so are files that
        were half written when their writer was killed before this run.

        Args:
            manifest: what the pipeline says of its table; "identity", "counts" (planned, ok, filtered, failed and
                rows), "shards", "index" and "errors" are added.
            index: what `locate` returned, with any columns added; all rows, in their order.
            lost_before: further rows of errors.parquet: inputs that were lost before they became items of this table.

        Returns:
            The manifest as written; a file that says the same already is left alone.

        Raises:
            RuntimeError: an item has no outcome, or the index has not all rows.
            UserError: another run has taken over the table.
        """
        counts = self.require_complete()
        locator = self._locator
        if locator is None:
            raise RuntimeError("Ledger.locate comes before Ledger.publish")
        self._require_lease()
        written = write_index(self.uri, index)
        if written["rows"] != locator.num_rows:
            raise RuntimeError(f"the index of {self.uri!r} has {written['rows']} rows, not {locator.num_rows}")
        self.write_outcomes(FAILED, ERRORS_NAME, lost_before)
        full = {
            **manifest,
            "identity": self.identity,
            "counts": {**counts, "rows": written["rows"]},
            "shards": locator.shards,
            "index": written,
            "errors": ERRORS_NAME,
        }
        self._require_lease()
        storage.write_if_changed(storage.join(self.uri, MANIFEST_NAME), (json.dumps(full, indent=2) + "\n").encode())
        self._log.set_published(locator.packed)
        self._remove_parts()
        return full

    def collect_garbage(self) -> list[str]:
        """Remove what no reader of the present manifest and no later run needs, and return its URIs.

        Shards, indices, segments of other identities, parts and half-written files go, if they were last written before
        this run took the lease. Not to be called while a reader may still use an earlier manifest.

        Raises:
            RuntimeError: the ledger was given no lease, so it cannot know what is old.
        """
        if self.lease is None:
            raise RuntimeError("Ledger.collect_garbage needs the ledger to have a lease")
        self._settle()
        self.lease.require()
        needed = self._log.parts_needed()
        removed = garbage.find(self.uri, self.published(), needed, set(self._segments), self.lease.since)
        remove_files(removed)
        self._log.forget_parts([name for name in map(garbage.part_of, removed) if name])
        return removed

    def _require_lease(self) -> None:
        if self.lease is not None:
            self.lease.require()

    def _remove_parts(self) -> None:
        """Remove the parts that nobody needs any more, after a look at the segments that tell of them."""
        self._merge_segments()
        self._require_segments()
        removed = self._log.parts_to_remove()
        remove_files([part_uri(self.uri, part) for part in removed])
        self._log.forget_parts(removed)
        if self.lease is not None:
            remove_files(garbage.find_partials(self.uri, self.lease.since))

    def _require_segments(self) -> None:
        for name, num_rows in self._segments.items():
            if segments.require_segment(self.uri, name) != num_rows:
                raise RuntimeError(f"segment {name} of {self.uri!r} does not hold what was written; no part is removed")

    def _merge_segments(self) -> None:
        """Write what many segments tell in few; the old ones go when the new ones are there."""
        self._settle()
        if len(self._segments) <= _SEGMENTS_AT_MOST:
            return
        old, self._segments = self._segments, {}
        total = self._log.segment_rows()
        for start in range(0, total, _ROWS_PER_SEGMENT):
            rows = self._log.segment(start, start + _ROWS_PER_SEGMENT)
            self._segments[segments.write_segment(self.uri, self.identity, rows)] = rows.num_rows
        self._require_segments()
        remove_files([segments.segment_uri(self.uri, name) for name in old if name not in self._segments])
