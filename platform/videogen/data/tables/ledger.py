"""The ledger of a table: which planned items are done, how they ended, and where their rows are.

    with Lease(uri) as lease, Ledger(uri, identity, lease) as ledger:
        for batch in ledger.pending(planned):     # plan -> what is left to do
            ...                                   # workers: record = write_part(uri, unit_id, rows, outcomes, identity)
            ledger.note([record])                 # as they report
        packs = ledger.plan_packs(256 << 20)      # workers: pack_shard(uri, pack), each pack anywhere
        ledger.publish(manifest, ledger.locate())

What is true, whoever is killed when:

- A part's footer is the record of its unit; the rest of what is known of units is in journal.py.
- Readers see a table change in one step, when `manifest.json` is replaced, after all that it names is there.
- An item counts once. Of several outcomes the best counts (ok, filtered, failed); of several that are ok the one that
  is published, then the one with the least part name; of failures the last one, which is the one with most attempts:
  who tries again counts on from `attempts_before`.
- An item is only ok while its rows are there: in a part, or in a shard.
- `publish` refuses unless planned = ok + filtered + failed.
- A driver that stood still while another took over removes nothing that the other needs: it looks at the lease right
  before, what it removes by name are parts and segments that are told of elsewhere, and the manifest is swapped.

Memory is flat: what grows with the number of items is on local disk (see scratch.py).
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from videogen import storage
from videogen.data.tables import published
from videogen.data.tables.files import ERRORS_NAME, remove_files
from videogen.data.tables.garbage import find_partials
from videogen.data.tables.index import write_index
from videogen.data.tables.journal import Journal
from videogen.data.tables.lease import Lease
from videogen.data.tables.locate import Locator
from videogen.data.tables.outcome_log import OutcomeLog
from videogen.data.tables.packing import make_packs
from videogen.data.tables.planned import PlannedItems
from videogen.data.tables.records import ATTEMPTS_BEFORE, ERRORS_SCHEMA, FAILED, ITEM_ID, STATUSES, Pack, PartRecord
from videogen.data.tables.scratch import MEMORY_MB, Scratch


class Ledger:
    """What is known of a table's items; one driver at a time (see lease.py), any number of workers beside it.

    Args:
        table_uri: folder of the table; need not be there yet.
        identity: hash of all that decides an item's rows beside the item, letters and digits; items that were done
            under another identity are not done.
        lease: if given, it is looked at right before anything is published or removed.
        memory_mb: of the local database; the driver holds little else.
    """

    def __init__(self, table_uri: str, identity: str, lease: Lease | None = None, memory_mb: int = MEMORY_MB) -> None:
        if not identity.isalnum():
            raise ValueError(f"identity {identity!r} must be letters and digits: it becomes part of file names")
        self.uri = storage.absolute(table_uri)
        self.identity = identity
        self.lease = lease
        self._memory_mb = memory_mb
        self._scratch: Scratch
        self._journal: Journal
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
        self._scratch = Scratch(self._memory_mb)
        try:
            shards = {shard["name"] for shard in self.published().get("shards", [])}
            self._journal = Journal(self.uri, self.identity, shards, self._require_lease, self._scratch)
        except BaseException:
            self._scratch.close()
            raise
        return self

    def close(self) -> None:
        """Write down what was noted, and remove the local database."""
        try:
            self.flush()
        finally:
            self._scratch.close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *exception: object) -> None:
        self.close()

    def published(self) -> dict[str, Any]:
        """Return the manifest that readers see now; {} if none was published yet."""
        return published.read_manifest(self.uri) or {}

    # --- what is done --------------------------------------------------------------------------------------------

    def note(self, records: Iterable[PartRecord]) -> None:
        """Take in what workers have committed; written down every so many items or seconds, by `flush` and `close`.

        Noting twice, or what was read when the ledger was opened, does no harm.
        """
        self._journal.note(records)

    def flush(self) -> None:
        """Write down what was noted since the last time, as one segment."""
        self._journal.flush()

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
        self._planned = PlannedItems(self._scratch, items)

    def pending(
        self, items: Iterable[pa.RecordBatch] | None = None, retry_failed: bool = False
    ) -> Iterator[pa.RecordBatch]:
        """Return the planned items that have no outcome yet, in order, with all their columns.

        What is pending is decided by this call; notes taken while the result is read do not change it.

        Args:
            items: what is planned, as for `plan`; None: what was planned last.
            retry_failed: whether failed items are pending too; then there is one more column, `attempts_before`, which
                workers add to (see `Outcome.after`): null for items that have not failed.
        """
        plan = self._settled_plan(items)
        chosen = plan.select(self._log.todo(retry_failed))
        if not retry_failed:
            return (batch for batch, _ in chosen)
        return (batch.append_column(ATTEMPTS_BEFORE, told["attempts"].combine_chunks()) for batch, told in chosen)

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
        """Write the planned items that ended in `status` as the file `name`, after rows of others.

        Raises:
            UserError: another run has taken over the table.
        """
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, ERRORS_SCHEMA, compression="zstd") as writer:
            for batch in itertools.chain(before, self.outcomes(status)):
                writer.write_batch(batch)
        self._require_lease()
        storage.write_if_changed(storage.join(self.uri, name), sink.getvalue().to_pybytes())

    def facts(self) -> dict[str, float]:
        """Return the sums of the facts of all parts that hold an outcome that counts."""
        self._journal.settle()
        return self._log.facts()

    def _settled_plan(self, items: Iterable[pa.RecordBatch] | None = None) -> PlannedItems:
        if items is not None:
            self.plan(items)
        if self._planned is None:
            raise RuntimeError("give the planned items first: Ledger.plan(items) or Ledger.pending(items)")
        self._journal.settle()
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
        published.replace(self.uri, full, self._require_lease)
        self._log.set_published(locator.packed)
        self.tidy()
        return full

    def tidy(self) -> None:
        """Remove parts that are in published shards or have no row that counts, and what killed writers left half done.

        `publish` does this too; where there is nothing to publish, an earlier run may have been killed before it did.
        """
        self._journal.remove_parts()
        if self.lease is not None and (partials := find_partials(self.uri, self.lease.since)):
            self.lease.require()
            remove_files(partials)

    @property
    def _log(self) -> OutcomeLog:
        return self._journal.log

    def _require_lease(self) -> None:
        if self.lease is not None:
            self.lease.require()
