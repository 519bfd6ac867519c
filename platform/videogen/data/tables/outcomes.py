"""Outcome database: how items ended and which files hold their rows, as SQL tables of the spill database.

outcomes(item_id, status, attempts, part, first_row, num_rows, ...)   rows of commit files
parts(part)                                                           parts that exist
shard_parts(shard, part, first_row, published)                        shards that exist, and their parts
planned(ordinal, item_id)                                             see plan.py
"""

# ruff: noqa: S608 - statements consist of our own names; values are passed as parameters

import itertools
import json
from collections.abc import Collection, Iterable, Sequence

import pyarrow as pa

from videogen.data.tables.files import FAILED, OK, STATUSES, ShardRecord
from videogen.data.tables.plan import OrdinalRange
from videogen.data.tables.spill_database import SpillDatabase

_IS_OK = f"status = {STATUSES.index(OK)}"
_IN_FINAL_SHARD = "(SELECT part FROM shard_parts WHERE published OR part NOT IN (SELECT part FROM parts))"
"""Parts that need no packing: their shard is published, or the part itself does not exist any more."""
_PRECEDENCE = (
    f"status, CASE WHEN {_IS_OK} AND part IN (SELECT part FROM shard_parts WHERE published) THEN 0 ELSE 1 END, "
    f"CASE WHEN {_IS_OK} THEN 0 ELSE -attempts END, part"
)
"""Order of several outcomes of one item; the first one counts."""

_NEEDED = f"(SELECT part FROM outcomes WHERE {_IS_OK} AND part NOT IN (SELECT part FROM shard_parts WHERE published))"

_SHARD_PARTS = pa.schema(
    [("shard", pa.string()), ("part", pa.string()), ("first_row", pa.int64()), ("published", pa.bool_())]
)
_SHARDS_PER_INSERT = 256


class OutcomeDatabase:
    """Outcomes of items; `settle` keeps the one that counts of each item.

    Args:
        database: where the tables are created.
        schema: columns of `outcomes`.
    """

    def __init__(self, database: SpillDatabase, schema: pa.Schema) -> None:
        self.database = database
        self._columns: list[str] = schema.names
        self._settled = False
        database.create_empty("outcomes", schema)
        database.create_empty("parts", pa.schema([("part", pa.string())]))
        database.create_empty("shard_parts", _SHARD_PARTS)

    # --- input -------------------------------------------------------------------------------------------------------

    def add_outcomes(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Add rows of a commit file."""
        self.database.insert("outcomes", rows)
        self._settled = False

    def add_parts(self, rows: pa.Table) -> None:
        """Add parts that exist, as rows of a commit file."""
        self.add_outcomes(rows)
        self.database.insert("parts", pa.table({"part": rows["part"].unique()}))

    def add_listing(self, parts: list[str]) -> list[str]:
        """Add the names of the parts that exist; return those without a known outcome."""
        self.database.create_empty("listed", pa.schema([("part", pa.string())]))
        self.database.insert("listed", pa.table({"part": pa.array(parts, pa.string())}))
        self.database.create("known", "SELECT DISTINCT part FROM outcomes")
        self.database.run("INSERT INTO parts SELECT part FROM listed SEMI JOIN known USING (part)")
        self._settled = False
        return self.database.texts("SELECT part FROM listed ANTI JOIN known USING (part) ORDER BY part")

    def add_shards(self, records: Iterable[ShardRecord], published: Collection[str]) -> None:
        """Add shards that exist; `published` names those in the manifest."""
        records = iter(records)
        while some := list(itertools.islice(records, _SHARDS_PER_INSERT)):
            rows = [
                (record.name, part, first_row, record.name in published)
                for record in some
                for part, first_row in zip(record.parts, _first_rows(record), strict=True)
            ]
            columns = [
                pa.array(column, field.type)
                for column, field in zip(zip(*rows, strict=True), _SHARD_PARTS, strict=True)
            ]
            self.database.insert("shard_parts", pa.table(columns, schema=_SHARD_PARTS))
        self._settled = False

    def set_published(self, records: Sequence[ShardRecord]) -> None:
        """Mark shards as published."""
        names = {record.name for record in records}
        self.database.create_empty("new", pa.schema([("shard", pa.string())]))
        self.database.insert("new", pa.table({"shard": pa.array(sorted(names), pa.string())}))
        self.database.run("DELETE FROM shard_parts WHERE shard IN (SELECT shard FROM new)")
        self.add_shards(records, names)

    def forget_parts(self, parts: list[str]) -> None:
        """Remove parts that do not exist any more."""
        self.database.create_empty("gone", pa.schema([("part", pa.string())]))
        self.database.insert("gone", pa.table({"part": pa.array(parts, pa.string())}))
        self.database.run("DELETE FROM parts WHERE part IN (SELECT part FROM gone)")

    def settle(self) -> None:
        """Remove outcomes whose rows are in no file, and all outcomes of an item except the one that counts."""
        if self._settled:
            return
        self.database.run(
            f"DELETE FROM outcomes WHERE {_IS_OK} "
            "AND part NOT IN (SELECT part FROM parts UNION ALL SELECT part FROM shard_parts)"
        )
        # Few items have several outcomes, so only those are sorted.
        self.database.create("several", "SELECT item_id FROM outcomes GROUP BY item_id HAVING count(*) > 1")
        self.database.run(
            "DELETE FROM outcomes WHERE rowid IN (SELECT id FROM (SELECT rowid AS id, "
            f"row_number() OVER (PARTITION BY item_id ORDER BY {_PRECEDENCE}) AS place "
            "FROM outcomes WHERE item_id IN (SELECT item_id FROM several)) WHERE place > 1)"
        )
        self._settled = True

    # --- queries on planned items, after `settle` --------------------------------------------------------------------

    def pending(self, retry_failed: bool) -> OrdinalRange:
        """Select the planned items that are not done, with `attempts` so far, null if none."""
        wanted = f"status IS NULL OR ({retry_failed} AND status = {STATUSES.index(FAILED)})"
        name = self.database.new_name("pending")
        self.database.create(
            name,
            f"SELECT ordinal, attempts FROM planned LEFT JOIN outcomes USING (item_id) WHERE {wanted} ORDER BY ordinal",
        )
        return self.by_ordinal(name)

    def with_status(self, status: str) -> OrdinalRange:
        """Select the outcomes of the planned items that ended in this status."""
        name = self.database.new_name("ended")
        self.database.create(
            name,
            "SELECT ordinal, item_id, outcomes.uri, stage, error, attempts, log_tail "
            f"FROM planned JOIN outcomes USING (item_id) WHERE status = {STATUSES.index(status)} ORDER BY ordinal",
        )
        return self.by_ordinal(name)

    def by_ordinal(self, table: str) -> OrdinalRange:
        """Return a reader of a table with the column `ordinal`."""
        query = f"SELECT * FROM {table} WHERE ordinal >= ? AND ordinal < ? ORDER BY ALL"
        return lambda start, stop: self.database.fetch(query, [start, stop])

    def counts(self) -> dict[str, int]:
        """Count the planned items, and those that ended in each status."""
        query = "SELECT status, count(*) AS n FROM planned JOIN outcomes USING (item_id) GROUP BY status"
        found = {row["status"]: row["n"] for row in self.database.fetch(query).to_pylist()}
        statuses = {status: found.get(number, 0) for number, status in enumerate(STATUSES)}
        return {"planned": self.database.number("SELECT count(*) FROM planned"), **statuses}

    def metrics(self) -> dict[str, float]:
        """Return the sums of the metrics of all parts with an outcome that counts."""
        sums: dict[str, float] = {}
        query = "SELECT facts, count(DISTINCT part) AS n FROM outcomes GROUP BY facts ORDER BY facts"
        for row in self.database.fetch(query).to_pylist():
            for name, value in json.loads(row["facts"]).items():
                sums[name] = sums.get(name, 0.0) + value * row["n"]
        return sums

    # --- compaction --------------------------------------------------------------------------------------------------

    def parts_to_pack(self) -> list[tuple[str, int, int]]:
        """Return name, rows and bytes of the parts with rows that count and that are in no final shard."""
        found = self.database.fetch(
            "SELECT part, any_value(part_rows) AS num_rows, any_value(part_bytes) AS num_bytes FROM outcomes "
            f"SEMI JOIN planned USING (item_id) WHERE {_IS_OK} AND part NOT IN {_IN_FINAL_SHARD} "
            "GROUP BY part ORDER BY part"
        )
        columns = (found[name].to_pylist() for name in ("part", "num_rows", "num_bytes"))
        return list(zip(*columns, strict=True))

    def existing_shards(self) -> set[str]:
        """Return the names of the shards that exist."""
        return set(self.database.texts("SELECT DISTINCT shard FROM shard_parts"))

    def locate(self, packed: Iterable[ShardRecord]) -> list[str]:
        """Locate the rows of the planned items; return the sorted names of the shards that hold any.

        Creates the table `located(ordinal, shard, row)`, in this order; `shard` is an index into the returned names.

        Args:
            packed: shards to publish, in addition to the final ones.

        Raises:
            RuntimeError: a part is in none of the shards.
        """
        self.database.create(
            "places",
            "SELECT part, arg_min(shard, rank) AS shard, arg_min(first_row, rank) AS first_row FROM "
            "(SELECT part, shard, first_row, CASE WHEN published THEN '0' ELSE '1' END || shard AS rank "
            f"FROM shard_parts WHERE part IN {_IN_FINAL_SHARD}) GROUP BY part",
        )
        for record in packed:
            first_rows = pa.array(_first_rows(record), pa.int64())
            shard = pa.array([record.name] * len(record.parts), pa.string())
            parts = pa.array(record.parts, pa.string())
            self.database.insert("places", pa.table({"part": parts, "shard": shard, "first_row": first_rows}))
        unpacked = "FROM outcomes SEMI JOIN planned USING (item_id) ANTI JOIN places USING (part)"
        for part in self.database.texts(f"SELECT part {unpacked} WHERE {_IS_OK} LIMIT 1"):
            raise RuntimeError(f"part {part} is in no shard: pack everything that `plan_packs` returns first")
        located = f"FROM planned JOIN outcomes USING (item_id) JOIN places USING (part) WHERE {_IS_OK}"
        names = self.database.texts(f"SELECT DISTINCT shard {located} ORDER BY shard")
        self.database.create_empty("shards", pa.schema([("shard", pa.string()), ("number", pa.int32())]))
        numbers = pa.array(range(len(names)), pa.int32())
        self.database.insert("shards", pa.table({"shard": pa.array(names, pa.string()), "number": numbers}))
        self.database.create(
            "located",
            "SELECT ordinal, number AS shard, (first + unnest(range(num_rows)))::INTEGER AS row FROM "
            f"(SELECT ordinal, shard, places.first_row + outcomes.first_row AS first, num_rows {located}) "
            "JOIN shards USING (shard) ORDER BY ordinal, row",
        )
        return names

    def parts_to_remove(self) -> list[str]:
        """Return the parts that exist but are not needed: their shard is published, or none of their rows counts."""
        return self.database.texts(f"SELECT DISTINCT part FROM parts WHERE part NOT IN {_NEEDED} ORDER BY part")

    # --- merge of commit files ---------------------------------------------------------------------------------------

    def prepare_merge(self) -> int:
        """Prepare `merged_rows`; return the number of rows."""
        columns = ", ".join(self._columns)
        self.database.create(
            "merged",
            f"SELECT row_number() OVER (ORDER BY part, first_row, item_id) - 1 AS ordinal, {columns} FROM outcomes",
        )
        return self.database.number("SELECT count(*) FROM merged")

    def merged_rows(self, start: int, stop: int) -> pa.Table:
        """Return a range of all outcomes, in the order of parts, with the columns of a commit file."""
        return self.by_ordinal("merged")(start, stop)


def _first_rows(record: ShardRecord) -> list[int]:
    """Return the first row of each part in a shard."""
    return [0, *itertools.accumulate(record.part_rows)][:-1]
