"""Plan of a run: its work items in canonical order, held on local disk with all their columns."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa

from videogen.data.tables.files import ITEM_ID
from videogen.data.tables.spill_database import SpillDatabase
from videogen.errors import UserError

_ROWS_PER_BATCH = 32_768

OrdinalRange = Callable[[int, int], pa.Table]
"""Reads rows of a table with the column `ordinal`, ascending, from one ordinal up to but excluding another."""


class Plan:
    """Planned items in their order; the database holds their ids as `planned(ordinal, item_id)`.

    Args:
        database: receives the ids; the other columns are kept in a file in its folder.
        items: column `item_id` (string, unique) and any others.

    Raises:
        UserError: an id occurs twice.
    """

    def __init__(self, database: SpillDatabase, items: Iterable[pa.RecordBatch]) -> None:
        self._path = database.folder / database.new_name("planned")
        self.num_items = 0
        self.schema: pa.Schema | None = None
        database.run("CREATE OR REPLACE TABLE planned (ordinal BIGINT, item_id VARCHAR)")
        with pa.OSFile(str(self._path), "wb") as file:
            self._write(database, file, items)
        self._require_unique(database)

    def _write(self, database: SpillDatabase, file: pa.NativeFile, items: Iterable[pa.RecordBatch]) -> None:
        writer: pa.RecordBatchWriter | None = None
        for batch in _rebatched(items):
            if writer is None:
                self.schema = batch.schema
                writer = pa.ipc.new_stream(file, batch.schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))
            writer.write_batch(batch)
            ordinals = pa.array(np.arange(self.num_items, self.num_items + batch.num_rows))
            database.insert("planned", pa.table({"ordinal": ordinals, ITEM_ID: batch[ITEM_ID]}))
            self.num_items += batch.num_rows
        if writer is not None:
            writer.close()

    def _require_unique(self, database: SpillDatabase) -> None:
        groups = "SELECT item_id, count(*) AS count, min(ordinal) AS first FROM planned GROUP BY item_id"
        query = f"SELECT * FROM ({groups}) WHERE count > 1 ORDER BY first LIMIT 1"  # noqa: S608 - no value in it
        for row in database.fetch(query).to_pylist():
            raise UserError(f"Item {row['item_id']!r} is planned {row['count']} times, but item ids must be unique.")

    def discard(self) -> None:
        """Remove the file of the items."""
        self._path.unlink(missing_ok=True)

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield all items again, each batch with the ordinal of its first item."""
        if self.schema is None:
            return
        start = 0
        with pa.OSFile(str(self._path), "rb") as file, pa.ipc.open_stream(file) as reader:
            for batch in reader:
                yield start, batch
                start += batch.num_rows

    def join(self, rows: OrdinalRange) -> Iterator[tuple[pa.RecordBatch, pa.Table]]:
        """Yield items and the rows of another table with the same ordinals, one item per row.

        Args:
            rows: the other table; an ordinal may occur any number of times.
        """
        for start, batch in self.batches():
            matching = rows(start, start + batch.num_rows)
            if matching.num_rows:
                yield batch.take(pa.array(matching["ordinal"].to_numpy() - start)), matching


def _rebatched(items: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the same rows in batches of bounded and not too small size."""
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
