"""Ledger: which planned items of a table are done, how they ended, where their rows are; and its transactions.

    with Lease(uri) as lease, Ledger(uri, identity, lease) as ledger:
        for batch in ledger.pending(planned):     # plan -> items that are left to do
            ...                                   # workers: record = write_part(uri, batch_id, rows, outcomes, ...)
            ledger.add([record])                  # as workers commit
        packs = ledger.plan_packs(256 << 20)      # compaction: pack_shard(uri, pack), each pack in any process
        ledger.publish(manifest, ledger.index_rows())

Guarantees, whichever process is killed at any time:

- The footer of a part is the primary record of its batch; see commit_log.py.
- Readers see a new snapshot atomically: `manifest.json` is replaced after all files that it names exist.
- An item counts once. Of several outcomes the best counts (ok, filtered, failed); of several that are ok the published
  one, then the one with the smallest part name; of several failures the latest, which has the most attempts.
- An item is ok only while its rows exist, in a part or in a shard.
- `publish` refuses unless planned = ok + filtered + failed.
- A driver that was suspended while another one took over (a zombie writer) is fenced: it checks the lease immediately
  before it removes files, removes only parts and commit files whose content is recorded elsewhere, and replaces the
  manifest by compare-and-swap.

Memory is constant: everything that grows with the number of items is in the spill database on local disk.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from videogen import storage
from videogen.data.tables.commit_log import CommitLog
from videogen.data.tables.data_files import make_packs
from videogen.data.tables.files import (
    ATTEMPTS_BEFORE,
    ERRORS_NAME,
    ERRORS_SCHEMA,
    FAILED,
    ITEM_ID,
    STATUSES,
    Pack,
    PartRecord,
)
from videogen.data.tables.index import IndexRows, write_index
from videogen.data.tables.lease import Lease
from videogen.data.tables.manifest import read_manifest, replace_manifest
from videogen.data.tables.outcomes import OutcomeDatabase
from videogen.data.tables.plan import Plan
from videogen.data.tables.spill_database import MEMORY_MB, SpillDatabase
from videogen.data.tables.vacuum import find_partials


class Ledger:
    """State of a table's items, for one driver at a time (see lease.py) and any number of workers.

    Args:
        table_uri: folder of the table; created if it does not exist.
        identity: hash of all settings that determine the rows of an item, letters and digits; items that were done
            under another identity count as not done.
        lease: checked immediately before anything is published or removed; None skips the check.
        memory_mb: memory limit of the spill database; the driver holds little else.
    """

    def __init__(self, table_uri: str, identity: str, lease: Lease | None = None, memory_mb: int = MEMORY_MB) -> None:
        if not identity.isalnum():
            raise ValueError(f"identity {identity!r} must be letters and digits: it becomes part of file names")
        self.uri = storage.absolute(table_uri)
        self.identity = identity
        self.lease = lease
        self._memory_mb = memory_mb
        self._database: SpillDatabase
        self._commit_log: CommitLog
        self._plan: Plan | None = None
        self._packs: list[Pack] | None = None
        self._index_rows: IndexRows | None = None

    # --- opening and closing -----------------------------------------------------------------------------------------

    def open(self) -> Self:
        """Read the state that earlier runs left: commit files, shards, and the footers of parts that no file lists.

        Truncated and foreign files are logged and otherwise treated as missing.

        Raises:
            OSError: the storage does not answer; nothing is concluded from that.
        """
        self._database = SpillDatabase(self._memory_mb)
        try:
            shards = {shard["name"] for shard in self.published().get("shards", [])}
            self._commit_log = CommitLog(self.uri, self.identity, shards, self._require_lease, self._database)
        except BaseException:
            self._database.close()
            raise
        return self

    def close(self) -> None:
        """Flush, and remove the spill database."""
        try:
            self.flush()
        finally:
            self._database.close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *exception: object) -> None:
        self.close()

    def published(self) -> dict[str, Any]:
        """Return the current manifest; {} if none was published yet."""
        return read_manifest(self.uri) or {}

    # --- commits -----------------------------------------------------------------------------------------------------

    def add(self, records: Iterable[PartRecord]) -> None:
        """Add parts that workers have committed; they are written to a commit file periodically and by `flush`.

        Adding a part twice has no effect.
        """
        self._commit_log.add(records)

    def flush(self) -> None:
        """Write the parts that were added since the last flush to a commit file."""
        self._commit_log.flush()

    # --- plan and outcomes -------------------------------------------------------------------------------------------

    def plan(self, items: Iterable[pa.RecordBatch]) -> None:
        """Set the planned items, in canonical order; all other methods are about these.

        Args:
            items: batches of one schema with `item_id` (string, unique) and any other columns. They are kept on local
                disk, so the iterator is read once.

        Raises:
            UserError: an item is planned twice.
        """
        self._packs = None
        self._index_rows = None
        if self._plan is not None:
            self._plan.discard()
        self._plan = Plan(self._database, items)

    def pending(
        self, items: Iterable[pa.RecordBatch] | None = None, retry_failed: bool = False
    ) -> Iterator[pa.RecordBatch]:
        """Return the planned items without an outcome, in order, with all their columns.

        The result is a snapshot of this call; parts that are added while it is read do not change it.

        Args:
            items: passed to `plan`; None: the current plan.
            retry_failed: also return failed items. The column `attempts_before` is added then, for
                `Outcome.with_prior_attempts`: null for items that have not failed.
        """
        plan = self._settled_plan(items)
        selected = plan.join(self._outcomes.pending(retry_failed))
        if not retry_failed:
            return (batch for batch, _ in selected)
        return (batch.append_column(ATTEMPTS_BEFORE, rows["attempts"].combine_chunks()) for batch, rows in selected)

    def missing(self, items: Iterable[pa.RecordBatch] | None = None) -> Iterator[pa.RecordBatch]:
        """Return the planned items without an outcome; after a complete run there are none."""
        return self.pending(items)

    def counts(self) -> dict[str, int]:
        """Count the planned items, and those that ended "ok", "filtered" and "failed".

        Flushes and scans all items, so it is too slow for a progress display.
        """
        self._settled_plan()
        return self._outcomes.counts()

    def require_complete(self) -> dict[str, int]:
        """Return `counts`.

        Raises:
            RuntimeError: a planned item has no outcome.
        """
        counts = self.counts()
        num_missing = counts["planned"] - sum(counts[status] for status in STATUSES)
        if num_missing:
            ids = itertools.chain.from_iterable(batch[ITEM_ID].to_pylist() for batch in self.missing())
            named = ", ".join(itertools.islice(ids, 5))
            raise RuntimeError(
                f"{num_missing} of the {counts['planned']} planned items of {self.uri!r} have no outcome, among them "
                f"{named}: run the same job again, it processes only these"
            )
        return counts

    def outcomes(self, status: str) -> Iterator[pa.RecordBatch]:
        """Return the planned items that ended in this status, in order, with the columns of `ERRORS_SCHEMA`."""
        plan = self._settled_plan()
        selected = plan.join(self._outcomes.with_status(status))
        return (
            rows.drop_columns("ordinal").cast(ERRORS_SCHEMA).combine_chunks().to_batches()[0] for _, rows in selected
        )

    def failures(self) -> Iterator[pa.RecordBatch]:
        """Return the planned items that failed, in order, as rows of errors.parquet."""
        return self.outcomes(FAILED)

    def write_outcomes(self, status: str, name: str, before: Iterable[pa.RecordBatch] = ()) -> None:
        """Write the planned items that ended in `status` to the file `name`, after the rows `before`.

        Raises:
            UserError: another run has taken over the table.
        """
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, ERRORS_SCHEMA, compression="zstd") as writer:
            for batch in itertools.chain(before, self.outcomes(status)):
                writer.write_batch(batch)
        self._require_lease()
        storage.write_if_changed(storage.join(self.uri, name), sink.getvalue().to_pybytes())

    def metrics(self) -> dict[str, float]:
        """Return the sums of the metrics of all parts with an outcome that counts."""
        self._commit_log.settle()
        return self._outcomes.metrics()

    def _settled_plan(self, items: Iterable[pa.RecordBatch] | None = None) -> Plan:
        if items is not None:
            self.plan(items)
        if self._plan is None:
            raise RuntimeError("give the planned items first: Ledger.plan(items) or Ledger.pending(items)")
        self._commit_log.settle()
        return self._plan

    # --- compaction and publishing -----------------------------------------------------------------------------------

    def plan_packs(self, target_bytes: int) -> list[Pack]:
        """Plan compaction: return the shards that are still to be packed, each to be given to `pack_shard`.

        All parts with rows of planned items that are ok are packed, in the order of their names, except those in
        published shards. Equal parts always give equal shards, so an interrupted compaction continues: shards that
        exist already are not returned.

        Args:
            target_bytes: size of a shard.
        """
        self._settled_plan()
        self._packs = make_packs(self._outcomes.parts_to_pack(), target_bytes, self.identity)
        self._index_rows = None
        existing = self._outcomes.existing_shards()
        return [pack for pack in self._packs if pack.name not in existing]

    def index_rows(self, columns: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        """Return the rows of the index: planned items that are ok, in order, with the location of their rows.

        An item with several rows occurs as often. Call it after `plan_packs`, when all packs are packed.

        Args:
            columns: scalar columns of the shards to add; reads these columns of all shards once.

        Returns:
            Batches with the planned columns, then `columns`, then `shard` int32, position in the manifest's "shards",
            and `row` int32, row in that shard.

        Raises:
            RuntimeError: a pack is not packed.
        """
        if self._packs is None:
            raise RuntimeError("call Ledger.plan_packs before Ledger.index_rows")
        plan = self._settled_plan()
        self._index_rows = IndexRows(self._outcomes, self.uri, self._packs, self.published())
        return self._index_rows.batches(plan, columns)

    def publish(
        self, manifest: Mapping[str, Any], index: Iterable[pa.RecordBatch], lost_before: Iterable[pa.RecordBatch] = ()
    ) -> dict[str, Any]:
        """Publish a new snapshot: write the index and errors.parquet, then replace the manifest atomically.

        Readers of an earlier manifest keep reading the files that it names, except errors.parquet, which is replaced.
        Afterwards `clean_up` removes parts that are not needed any more.

        Args:
            manifest: the pipeline's description of its table; "identity", "counts" (planned, ok, filtered, failed and
                rows), "shards", "index" and "errors" are added.
            index: all batches of `index_rows`, in their order, with any columns added.
            lost_before: additional rows of errors.parquet: inputs that failed before they became items of this table.

        Returns:
            The manifest as written; an identical file is left unchanged.

        Raises:
            RuntimeError: an item has no outcome, or rows are missing in the index.
            UserError: another run has taken over the table.
        """
        counts = self.require_complete()
        rows = self._index_rows
        if rows is None:
            raise RuntimeError("call Ledger.index_rows before Ledger.publish")
        self._require_lease()
        written = write_index(self.uri, index)
        if written["rows"] != rows.num_rows:
            raise RuntimeError(f"the index of {self.uri!r} has {written['rows']} rows, not {rows.num_rows}")
        self.write_outcomes(FAILED, ERRORS_NAME, lost_before)
        full = {
            **manifest,
            "identity": self.identity,
            "counts": {**counts, "rows": written["rows"]},
            "shards": rows.shards,
            "index": written,
            "errors": ERRORS_NAME,
        }
        replace_manifest(self.uri, full, self._require_lease)
        self._outcomes.set_published(rows.packed)
        self.clean_up()
        return full

    def clean_up(self) -> None:
        """Remove parts that are in published shards or have no row that counts, and unfinished writes of killed runs.

        Commit files keep the outcomes of removed parts. `publish` does this too; a run with nothing to publish calls it
        because an earlier run may have been killed right after it published. Unfinished writes need a lease.
        """
        self._commit_log.remove_parts()
        if self.lease is not None and (partials := find_partials(self.uri, self.lease.since)):
            self.lease.require()
            storage.remove_files(partials)

    @property
    def _outcomes(self) -> OutcomeDatabase:
        return self._commit_log.outcomes

    def _require_lease(self) -> None:
        if self.lease is not None:
            self.lease.require()
