"""Planned items, held on disk in their order: those who ask for some of them get them back as they were."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa

from videogen.data.tables.records import ITEM_ID
from videogen.data.tables.scratch import Scratch
from videogen.errors import UserError

_ROWS_PER_BATCH = 32_768


class PlannedItems:
    """The items of a run in their order; the database has their ids as `planned(ordinal, item_id)`.

    Args:
        scratch: where the ids go, and in whose folder the other columns are kept.
        items: columns `item_id` (string, all different) and any others.

    Raises:
        UserError: an id is there twice.
    """

    def __init__(self, scratch: Scratch, items: Iterable[pa.RecordBatch]) -> None:
        self._path = scratch.folder / scratch.new_name("planned")
        self.num_items = 0
        self.schema: pa.Schema | None = None
        scratch.run("CREATE OR REPLACE TABLE planned (ordinal BIGINT, item_id VARCHAR)")
        with pa.OSFile(str(self._path), "wb") as file:
            self._spool(scratch, file, items)
        self._require_unique(scratch)

    def _spool(self, scratch: Scratch, file: pa.NativeFile, items: Iterable[pa.RecordBatch]) -> None:
        writer: pa.RecordBatchWriter | None = None
        for batch in _of_even_size(items):
            if writer is None:
                self.schema = batch.schema
                writer = pa.ipc.new_stream(file, batch.schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))
            writer.write_batch(batch)
            ordinals = pa.array(np.arange(self.num_items, self.num_items + batch.num_rows))
            scratch.insert("planned", pa.table({"ordinal": ordinals, ITEM_ID: batch[ITEM_ID]}))
            self.num_items += batch.num_rows
        if writer is not None:
            writer.close()

    def _require_unique(self, scratch: Scratch) -> None:
        groups = "SELECT item_id, count(*) AS count, min(ordinal) AS first FROM planned GROUP BY item_id"
        query = f"SELECT * FROM ({groups}) WHERE count > 1 ORDER BY first LIMIT 1"  # noqa: S608 - no value in it
        for row in scratch.fetch(query).to_pylist():
            raise UserError(f"Item {row['item_id']!r} is planned {row['count']} times, but an item must be there once.")

    def forget(self) -> None:
        """Remove what is kept of the items on disk."""
        self._path.unlink(missing_ok=True)

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield all items again, each batch with the ordinal of its first."""
        if self.schema is None:
            return
        start = 0
        with pa.OSFile(str(self._path), "rb") as file, pa.ipc.open_stream(file) as reader:
            for batch in reader:
                yield start, batch
                start += batch.num_rows

    def select(self, choose: Callable[[int, int], pa.Table]) -> Iterator[tuple[pa.RecordBatch, pa.Table]]:
        """Yield items that `choose` names, with what it says of them.

        Args:
            choose: given two ordinals, returns a table with a column `ordinal` (between the first and, exclusively,
                the second, ascending, any number of times) and any others.
        """
        for start, batch in self.batches():
            chosen = choose(start, start + batch.num_rows)
            if chosen.num_rows:
                yield batch.take(pa.array(chosen["ordinal"].to_numpy() - start)), chosen


def _of_even_size(items: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the same rows in batches that are neither tiny nor huge."""
    held: list[pa.RecordBatch] = []
    num_held = 0
    for batch in items:
        held.append(batch)
        num_held += batch.num_rows
        if num_held >= _ROWS_PER_BATCH:
            yield from _combined(held)
            held, num_held = [], 0
    if num_held:
        yield from _combined(held)


def _combined(batches: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield from pa.Table.from_batches(batches).combine_chunks().to_batches(max_chunksize=_ROWS_PER_BATCH)
