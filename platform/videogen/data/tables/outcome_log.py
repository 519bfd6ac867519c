"""How items ended and which files hold their rows, as tables of the local database; all of the ledger's SQL on them.

log(item_id, status, attempts, part, first_row, num_rows, ...)   as segments have it
files(part)                                                      parts that are there
held(shard, part, first_row, published)                          shards that are there, and what they hold
planned(ordinal, item_id)                                        see planned.py
"""

# ruff: noqa: S608 - statements are put together from our own words; values are passed beside them

import itertools
import json
from collections.abc import Callable, Collection, Iterable, Sequence

import pyarrow as pa

from videogen.data.tables import segments
from videogen.data.tables.records import FAILED, OK, STATUSES, ShardRecord
from videogen.data.tables.scratch import Scratch

_IS_OK = f"status = {STATUSES.index(OK)}"
_HELD_FOR_GOOD = "(SELECT part FROM held WHERE published OR part NOT IN (SELECT part FROM files))"
"""Parts that need no packing: they are published, or a shard is all that is left of them."""
_COUNTS_FIRST = (
    f"status, CASE WHEN {_IS_OK} AND part IN (SELECT part FROM held WHERE published) THEN 0 ELSE 1 END, "
    f"CASE WHEN {_IS_OK} THEN 0 ELSE -attempts END, part"
)
"""Which of several outcomes of an item counts."""

_NEEDED = f"(SELECT part FROM log WHERE {_IS_OK} AND part NOT IN (SELECT part FROM held WHERE published))"

_HELD = pa.schema([("shard", pa.string()), ("part", pa.string()), ("first_row", pa.int64()), ("published", pa.bool_())])
_SHARDS_PER_INSERT = 256

Choose = Callable[[int, int], pa.Table]


class OutcomeLog:
    """Outcomes of items; of several of one item, all but the one that counts are forgotten by `settle`."""

    def __init__(self, scratch: Scratch) -> None:
        self.scratch = scratch
        self._settled = False
        scratch.create_like("log", segments.SCHEMA)
        scratch.create_like("files", pa.schema([("part", pa.string())]))
        scratch.create_like("held", _HELD)

    # --- what there is -------------------------------------------------------------------------------------------

    def add_outcomes(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Take in rows of a segment."""
        self.scratch.insert("log", rows)
        self._settled = False

    def add_parts(self, rows: pa.Table) -> None:
        """Take in parts that are there, as the rows that a segment has of them."""
        self.add_outcomes(rows)
        self.scratch.insert("files", pa.table({"part": rows["part"].unique()}))

    def add_listing(self, parts: list[str]) -> list[str]:
        """Take in the names of the parts that are there; return those of which no outcome is known yet."""
        self.scratch.create_like("listed", pa.schema([("part", pa.string())]))
        self.scratch.insert("listed", pa.table({"part": pa.array(parts, pa.string())}))
        self.scratch.create("told", "SELECT DISTINCT part FROM log")
        self.scratch.run("INSERT INTO files SELECT part FROM listed SEMI JOIN told USING (part)")
        self._settled = False
        return self._texts("SELECT part FROM listed ANTI JOIN told USING (part) ORDER BY part")

    def add_shards(self, records: Iterable[ShardRecord], published: Collection[str]) -> None:
        """Take in shards that are there; `published` names those that the manifest does."""
        records = iter(records)
        while some := list(itertools.islice(records, _SHARDS_PER_INSERT)):
            rows = [
                (record.name, part, first_row, record.name in published)
                for record in some
                for part, first_row in zip(record.parts, _first_rows(record), strict=True)
            ]
            columns = [
                pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), _HELD, strict=True)
            ]
            self.scratch.insert("held", pa.table(columns, schema=_HELD))
        self._settled = False

    def set_published(self, records: Sequence[ShardRecord]) -> None:
        """Take in that shards are published now."""
        names = {record.name for record in records}
        self.scratch.create_like("new", pa.schema([("shard", pa.string())]))
        self.scratch.insert("new", pa.table({"shard": pa.array(sorted(names), pa.string())}))
        self.scratch.run("DELETE FROM held WHERE shard IN (SELECT shard FROM new)")
        self.add_shards(records, names)

    def forget_parts(self, parts: list[str]) -> None:
        """Take in that parts are no longer there."""
        self.scratch.create_like("gone", pa.schema([("part", pa.string())]))
        self.scratch.insert("gone", pa.table({"part": pa.array(parts, pa.string())}))
        self.scratch.run("DELETE FROM files WHERE part IN (SELECT part FROM gone)")

    def settle(self) -> None:
        """Forget outcomes whose rows are nowhere, and all of an item but the one that counts."""
        if self._settled:
            return
        self.scratch.run(
            f"DELETE FROM log WHERE {_IS_OK} AND part NOT IN (SELECT part FROM files UNION ALL SELECT part FROM held)"
        )
        # Few items have several outcomes, so only those are sorted.
        self.scratch.create("several", "SELECT item_id FROM log GROUP BY item_id HAVING count(*) > 1")
        self.scratch.run(
            "DELETE FROM log WHERE rowid IN (SELECT id FROM (SELECT rowid AS id, "
            f"row_number() OVER (PARTITION BY item_id ORDER BY {_COUNTS_FIRST}) AS place "
            "FROM log WHERE item_id IN (SELECT item_id FROM several)) WHERE place > 1)"
        )
        self._settled = True

    # --- of planned items, after `settle` ------------------------------------------------------------------------

    def todo(self, retry_failed: bool) -> Choose:
        """Return what chooses the planned items that are not done, and says their attempts so far, null if none."""
        wanted = f"status IS NULL OR ({retry_failed} AND status = {STATUSES.index(FAILED)})"
        name = self.scratch.new_name("todo")
        self.scratch.create(
            name,
            f"SELECT ordinal, attempts FROM planned LEFT JOIN log USING (item_id) WHERE {wanted} ORDER BY ordinal",
        )
        return self.between(name)

    def told(self, status: str) -> Choose:
        """Return what chooses the planned items that ended so, and how."""
        name = self.scratch.new_name("told")
        self.scratch.create(
            name,
            "SELECT ordinal, item_id, log.uri, stage, error, attempts, log_tail FROM planned JOIN log USING (item_id) "
            f"WHERE status = {STATUSES.index(status)} ORDER BY ordinal",
        )
        return self.between(name)

    def between(self, table: str) -> Choose:
        """Return what reads a table with a column `ordinal` from one ordinal up to another."""
        query = f"SELECT * FROM {table} WHERE ordinal >= ? AND ordinal < ? ORDER BY ALL"
        return lambda start, stop: self.scratch.fetch(query, [start, stop])

    def counts(self) -> dict[str, int]:
        """Return how many are planned, and how many ended in each status."""
        query = "SELECT status, count(*) AS n FROM planned JOIN log USING (item_id) GROUP BY status"
        found = {row["status"]: row["n"] for row in self.scratch.fetch(query).to_pylist()}
        statuses = {status: found.get(number, 0) for number, status in enumerate(STATUSES)}
        return {"planned": self.scratch.number("SELECT count(*) FROM planned"), **statuses}

    def facts(self) -> dict[str, float]:
        """Return the sums of the facts of all parts with an outcome that counts."""
        sums: dict[str, float] = {}
        query = "SELECT facts, count(DISTINCT part) AS n FROM log GROUP BY facts ORDER BY facts"
        for row in self.scratch.fetch(query).to_pylist():
            for name, value in json.loads(row["facts"]).items():
                sums[name] = sums.get(name, 0.0) + value * row["n"]
        return sums

    # --- packing -------------------------------------------------------------------------------------------------

    def parts_to_pack(self) -> list[tuple[str, int, int]]:
        """Return name, rows and bytes of the parts with rows that count, but for those that need no packing."""
        found = self.scratch.fetch(
            "SELECT part, any_value(part_rows) AS num_rows, any_value(part_bytes) AS num_bytes FROM log "
            f"SEMI JOIN planned USING (item_id) WHERE {_IS_OK} AND part NOT IN {_HELD_FOR_GOOD} "
            "GROUP BY part ORDER BY part"
        )
        columns = (found[name].to_pylist() for name in ("part", "num_rows", "num_bytes"))
        return list(zip(*columns, strict=True))

    def shards_there(self) -> set[str]:
        """Return the names of the shards that are there."""
        return set(self._texts("SELECT DISTINCT shard FROM held"))

    def place(self, packed: Iterable[ShardRecord]) -> list[str]:
        """Decide where the rows of the planned items are; return the names of the shards that hold any, sorted.

        Leaves a table `located(ordinal, shard, row)` in this order, `shard` being a place in what is returned.

        Args:
            packed: shards that are to be published, beside those that hold parts for good.

        Raises:
            RuntimeError: a part is in none of them.
        """
        self.scratch.create(
            "places",
            "SELECT part, arg_min(shard, rank) AS shard, arg_min(first_row, rank) AS first_row FROM "
            "(SELECT part, shard, first_row, CASE WHEN published THEN '0' ELSE '1' END || shard AS rank FROM held "
            f"WHERE part IN {_HELD_FOR_GOOD}) GROUP BY part",
        )
        for record in packed:
            first_rows = pa.array(_first_rows(record), pa.int64())
            shard = pa.array([record.name] * len(record.parts), pa.string())
            parts = pa.array(record.parts, pa.string())
            self.scratch.insert("places", pa.table({"part": parts, "shard": shard, "first_row": first_rows}))
        query = f"SELECT part FROM log SEMI JOIN planned USING (item_id) ANTI JOIN places USING (part) WHERE {_IS_OK}"
        for part in self._texts(f"{query} LIMIT 1"):
            raise RuntimeError(f"part {part} is in no shard: pack what `plan_packs` returns first")
        located = f"FROM planned JOIN log USING (item_id) JOIN places USING (part) WHERE {_IS_OK}"
        names = self._texts(f"SELECT DISTINCT shard {located} ORDER BY shard")
        self.scratch.create_like("shards", pa.schema([("shard", pa.string()), ("number", pa.int32())]))
        numbers = pa.array(range(len(names)), pa.int32())
        self.scratch.insert("shards", pa.table({"shard": pa.array(names, pa.string()), "number": numbers}))
        self.scratch.create(
            "located",
            "SELECT ordinal, number AS shard, (first + unnest(range(num_rows)))::INTEGER AS row FROM "
            f"(SELECT ordinal, shard, places.first_row + log.first_row AS first, num_rows {located}) "
            "JOIN shards USING (shard) ORDER BY ordinal, row",
        )
        return names

    def parts_to_remove(self) -> list[str]:
        """Return the parts that are there but needed no more: they are published, or have no row that counts."""
        return self._texts(f"SELECT DISTINCT part FROM files WHERE part NOT IN {_NEEDED} ORDER BY part")

    def segment_rows(self) -> int:
        """Prepare `segment`, and return the number of rows that it can return."""
        columns = ", ".join(segments.SCHEMA.names)
        self.scratch.create(
            "merged",
            f"SELECT row_number() OVER (ORDER BY part, first_row, item_id) - 1 AS ordinal, {columns} FROM log",
        )
        return self.scratch.number("SELECT count(*) FROM merged")

    def segment(self, start: int, stop: int) -> pa.Table:
        """Return rows of the log, in the order of parts, as a segment has them."""
        return self.between("merged")(start, stop)

    def _texts(self, query: str) -> list[str]:
        return self.scratch.fetch(query).column(0).to_pylist()


def _first_rows(record: ShardRecord) -> list[int]:
    """Return where the rows of each part begin in a shard."""
    return [0, *itertools.accumulate(record.part_rows)][:-1]
