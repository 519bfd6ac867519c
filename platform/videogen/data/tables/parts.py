"""Parts: one committed unit of work a file. Written by workers, which share nothing; one atomic object each.

The footer says how every item of the unit ended, so the file is the whole record: it is there or not, and a driver
that is killed loses nothing that a worker has finished.
"""

import functools
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from videogen import storage
from videogen.data.tables.files import PARTS, SUFFIX, Footer, ForeignFileError, read_footer, stem
from videogen.data.tables.records import ITEM_ID, OK, Outcome, PartRecord

ROWS_PER_GROUP = 1024
"""Rows that one random access reads, unless the writer knows better: for latents a few, for scalars many."""

_NAME = re.compile(r"[0-9A-Za-z_-]+")
_PART_KEY, _GROUP_KEY = b"videogen.part", b"videogen.rows_per_group"


def part_uri(table_uri: str, name: str) -> str:
    """Return where the part of this name is."""
    return storage.join(table_uri, PARTS, name + SUFFIX)


def write_part(
    table_uri: str,
    unit_id: str,
    rows: pa.Table,
    outcomes: Sequence[Outcome],
    identity: str,
    facts: Mapping[str, float] | None = None,
    rows_per_group: int = ROWS_PER_GROUP,
) -> PartRecord:
    """Commit one unit: write its rows and how its items ended as one object, whole or not at all.

    May be called any number of times for a unit, by any number of processes, on S3 or locally.

    Args:
        table_uri: folder of the table.
        unit_id: hash of the identity and the ids of the unit's items.
        rows: any columns, among them `item_id`; the rows of an item lie together, items in the order of `outcomes`.
            All parts of a table have the same schema, also those without rows. Binary columns are not compressed.
        outcomes: one for each item of the unit, ids all different; those that are "ok" have at least one row, others
            none.
        identity: hash of all that decides the rows beside the items.
        facts: numbers to be summed up over all units, e.g. seconds of decoding.
        rows_per_group: rows that one random access will read, also after packing.

    Returns:
        The record, to be given to `Ledger.note`.

    Raises:
        ValueError: rows and outcomes do not belong together.
    """
    record, data = _part(unit_id, rows, outcomes, identity, facts or {}, rows_per_group)
    storage.write_bytes(part_uri(table_uri, record.name), data)
    return record


def _part(
    unit_id: str,
    rows: pa.Table,
    outcomes: Sequence[Outcome],
    identity: str,
    facts: Mapping[str, float],
    rows_per_group: int,
) -> tuple[PartRecord, bytes]:
    if not _NAME.fullmatch(unit_id):
        raise ValueError(f"unit id {unit_id!r} becomes a file's name: it must be letters, digits, - and _")
    record = PartRecord(unit_id, identity, rows.num_rows, 0, _counted(unit_id, rows, outcomes), dict(facts))
    rows = rows.replace_schema_metadata(None)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, rows.schema, **writer_options(rows.schema)) as writer:
        writer.write_table(rows, row_group_size=rows_per_group)
        writer.add_key_value_metadata({_PART_KEY: record.to_json(), **group_note(rows_per_group)})
    data = sink.getvalue().to_pybytes()
    return replace(record, num_bytes=len(data)), data


def _counted(unit_id: str, rows: pa.Table, outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """Return the outcomes with the rows of each, after checking that they fit."""
    if len({outcome.item_id for outcome in outcomes}) != len(outcomes) or not outcomes:
        raise ValueError(f"unit {unit_id!r} must have one outcome for each of its items, not {len(outcomes)}")
    found = [(key, len(list(run))) for key, run in itertools.groupby(rows[ITEM_ID].to_pylist())]
    wanted = [outcome.item_id for outcome in outcomes if outcome.status == OK]
    if [key for key, _ in found] != wanted:
        raise ValueError(
            f"unit {unit_id!r} has rows of the items {[key for key, _ in found]}, but its outcomes say that {wanted} "
            "have rows, in this order"
        )
    counts = dict(found)
    for outcome in outcomes:
        if outcome.rows not in (0, counts.get(outcome.item_id, 0)):
            raise ValueError(f"item {outcome.item_id!r} has {counts.get(outcome.item_id, 0)} rows, not {outcome.rows}")
    return tuple(replace(outcome, rows=counts.get(outcome.item_id, 0)) for outcome in outcomes)


def read_part_record(uri: str) -> PartRecord:
    """Return the record of a part from its footer; no row is read.

    Raises:
        ForeignFileError: half written, or not a part, or not under its own name.
        OSError: the storage failed.
    """
    footer = read_footer(uri)
    try:
        record = replace(PartRecord.from_json(footer.note(_PART_KEY)), num_bytes=footer.num_bytes)
    except (json.JSONDecodeError, TypeError, KeyError) as error:
        raise ForeignFileError(f"its record cannot be read ({error})") from error
    counted = sum(outcome.rows for outcome in record.outcomes)
    if record.name != stem(uri) or not counted == record.rows == footer.metadata.num_rows:
        raise ForeignFileError("its name or its number of rows is not that of its record")
    return record


def rows_per_group(footer: Footer) -> int:
    """Return the rows of a row group that the writer of a part or shard asked for."""
    return int(footer.note(_GROUP_KEY))


def group_note(rows: int) -> dict[bytes, bytes]:
    """Return what `rows_per_group` reads, for a footer."""
    return {_GROUP_KEY: str(rows).encode()}


@functools.lru_cache(maxsize=16)
def writer_options(schema: pa.Schema) -> dict[str, Any]:
    """Return how columns are written: text with a dictionary, values compressed, binary as it is.

    Latents and JPEGs are noise to a compressor, and the smallest and the largest of them say nothing.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    leaves = pq.read_metadata(pa.BufferReader(sink.getvalue())).schema
    columns = [leaves.column(index) for index in range(len(leaves))]
    of_bytes = [column for column in columns if column.physical_type in ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")]
    binary = {column.path for column in of_bytes if column.logical_type.type == "NONE"}
    text = [column.path for column in of_bytes if column.path not in binary]
    values = [column.path for column in columns if column.path not in binary]
    return {
        "compression": dict.fromkeys(values, "zstd"),
        "use_dictionary": text,
        "write_statistics": values,
        # What is not compressed has no other check: a flipped bit in latents would pass for a latent.
        "write_page_checksum": True,
    }
