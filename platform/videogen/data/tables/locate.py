"""Where the rows of planned items are: the rows of an index, in canonical order."""

# ruff: noqa: S608 - statements are put together from our own words; values are passed beside them

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from videogen import storage
from videogen.data.tables.files import ForeignFileError
from videogen.data.tables.outcome_log import OutcomeLog
from videogen.data.tables.packing import read_shard_record
from videogen.data.tables.planned import PlannedItems
from videogen.data.tables.records import Pack, ShardRecord

SHARD, ROW = "shard", "row"
"""The last two columns of an index: place in the manifest's "shards", and place in that shard."""
_ROWS_PER_BATCH = 65_536


class Locator:
    """Places of all rows of the planned items that are ok.

    Args:
        log: settled, with the planned items.
        table_uri: folder of the table.
        packs: what is to be published beside what is.
        published: the manifest that readers see now; {} if there is none.

    Raises:
        RuntimeError: a pack is not packed yet.
    """

    def __init__(self, log: OutcomeLog, table_uri: str, packs: Sequence[Pack], published: Mapping[str, Any]) -> None:
        self._log = log
        self._uri = table_uri
        self.packed = [self._record_of(pack) for pack in packs]
        names = log.place(self.packed)
        known = {shard["name"]: shard for shard in published.get("shards", [])}
        known |= {record.name: record.as_manifest() for record in self.packed}
        self.shards: list[dict[str, Any]] = [
            known.get(name) or read_shard_record(table_uri, name).as_manifest() for name in names
        ]
        """What the manifest says of each shard that holds a row; column `shard` counts in it."""
        self.num_rows = log.scratch.number("SELECT count(*) FROM located")

    def _record_of(self, pack: Pack) -> ShardRecord:
        try:
            return read_shard_record(self._uri, pack.name)
        except (FileNotFoundError, ForeignFileError) as error:
            raise RuntimeError(f"{pack.name} of {self._uri!r} is not packed yet: call pack_shard first") from error

    def rows(self, plan: PlannedItems, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the planned columns, `columns` of the shards' rows, `shard` and `row`, one row a row."""
        table, names = "located", []
        if columns and self.shards:
            table, names = "gathered", self._gather(columns)
        for items, rows in plan.select(self._log.between(table)):
            added = [
                (field, rows[f"c{number}"].combine_chunks().cast(field.type)) for number, field in enumerate(names)
            ]
            places = [(pa.field(name, pa.int32()), rows[name].combine_chunks()) for name in (SHARD, ROW)]
            batch = items
            for field, values in [*added, *places]:
                batch = batch.append_column(field, values)
            yield batch

    def _gather(self, columns: Sequence[str]) -> list[pa.Field]:
        """Bring columns of all shards into the order of `located`, as `gathered(ordinal, c0, c1, ..., shard, row)`."""
        scratch = self._log.scratch
        fields: list[pa.Field] = []
        for number, shard in enumerate(self.shards):
            filesystem, path = storage.arrow_filesystem(storage.join(self._uri, shard["name"]))
            with filesystem.open_input_file(path) as file, pq.ParquetFile(file) as parquet:
                if not fields:
                    fields = [parquet.schema_arrow.field(name) for name in columns]
                    cells = [pa.field(f"c{place}", field.type) for place, field in enumerate(fields)]
                    scratch.create_like("cells", pa.schema([*cells, (SHARD, pa.int32()), (ROW, pa.int32())]))
                first_row = 0
                for batch in parquet.iter_batches(_ROWS_PER_BATCH, columns=list(columns)):
                    values = {f"c{place}": batch[field.name] for place, field in enumerate(fields)}
                    values[SHARD] = pa.array([number] * batch.num_rows, pa.int32())
                    values[ROW] = pa.array(range(first_row, first_row + batch.num_rows), pa.int32())
                    scratch.insert("cells", pa.table(values))
                    first_row += batch.num_rows
        names = ", ".join(f"c{place}" for place in range(len(fields)))
        query = f"SELECT ordinal, {SHARD}, {ROW}, {names} FROM located JOIN cells USING ({SHARD}, {ROW})"
        scratch.create("gathered", f"{query} ORDER BY ordinal, {ROW}")
        return fields
