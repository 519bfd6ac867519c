"""Data files of a table: parts that workers commit, and the shards that they are compacted into.

A worker commits a batch of work items by writing one part, as one atomic object. The part's footer records the outcome
of every item, so a killed driver loses nothing that a worker has finished. Compaction packs many small parts into few
large shards; the assignment of parts to shards depends on nothing but the parts.
"""

import contextlib
import functools
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from videogen import storage
from videogen.data.tables.files import (
    ITEM_ID,
    OK,
    PARTS,
    SUFFIX,
    Footer,
    ForeignFileError,
    Outcome,
    Pack,
    PartRecord,
    ShardRecord,
    read_footer,
    stem,
)

ROWS_PER_GROUP = 1024
"""Default number of rows that one random access reads; tables with large values use fewer."""

_NAME = re.compile(r"[0-9A-Za-z_-]+")
_PART_KEY, _SHARD_KEY, _GROUP_KEY = b"videogen.part", b"videogen.shard", b"videogen.rows_per_group"


# --- parts -----------------------------------------------------------------------------------------------------------


def part_uri(table_uri: str, name: str) -> str:
    """Return the URI of the part with this name."""
    return storage.join(table_uri, PARTS, name + SUFFIX)


def write_part(
    table_uri: str,
    batch_id: str,
    rows: pa.Table,
    outcomes: Sequence[Outcome],
    identity: str,
    metrics: Mapping[str, float] | None = None,
    rows_per_group: int = ROWS_PER_GROUP,
) -> PartRecord:
    """Commit a batch of work items: write its rows and outcomes as one atomic object.

    Safe to call any number of times for a batch, by any number of processes, on S3 or locally.

    Args:
        table_uri: folder of the table.
        batch_id: hash of the identity and the ids of the items.
        rows: any columns, among them `item_id`; the rows of an item are contiguous, items in the order of `outcomes`.
            All parts of a table have the same schema, including those without rows. Binary columns are not compressed.
        outcomes: one for each item of the batch, with unique ids; "ok" items have at least one row, others none.
        identity: hash of all settings that determine the rows of an item.
        metrics: numbers that are summed over all batches, e.g. seconds of computation.
        rows_per_group: rows that one random access reads, also after compaction.

    Returns:
        The record, for `Ledger.add`.

    Raises:
        ValueError: rows and outcomes do not match.
    """
    record, data = _part(batch_id, rows, outcomes, identity, metrics or {}, rows_per_group)
    storage.write_bytes(part_uri(table_uri, record.name), data)
    return record


def _part(
    batch_id: str,
    rows: pa.Table,
    outcomes: Sequence[Outcome],
    identity: str,
    metrics: Mapping[str, float],
    rows_per_group: int,
) -> tuple[PartRecord, bytes]:
    if not _NAME.fullmatch(batch_id):
        raise ValueError(f"batch id {batch_id!r} becomes a file name: it must be letters, digits, - and _")
    record = PartRecord(batch_id, identity, rows.num_rows, 0, _counted(batch_id, rows, outcomes), dict(metrics))
    rows = rows.replace_schema_metadata(None)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, rows.schema, **writer_options(rows.schema)) as writer:
        writer.write_table(rows, row_group_size=rows_per_group)
        writer.add_key_value_metadata({_PART_KEY: record.to_json(), **_group_metadata(rows_per_group)})
    data = sink.getvalue().to_pybytes()
    return replace(record, num_bytes=len(data)), data


def _counted(batch_id: str, rows: pa.Table, outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """Return the outcomes with their numbers of rows; raise if rows and outcomes do not match."""
    if len({outcome.item_id for outcome in outcomes}) != len(outcomes) or not outcomes:
        raise ValueError(f"batch {batch_id!r} must have one outcome for each of its items, not {len(outcomes)}")
    found = [(key, len(list(run))) for key, run in itertools.groupby(rows[ITEM_ID].to_pylist())]
    wanted = [outcome.item_id for outcome in outcomes if outcome.status == OK]
    if [key for key, _ in found] != wanted:
        raise ValueError(
            f"batch {batch_id!r} has rows of the items {[key for key, _ in found]}, but by its outcomes {wanted} have "
            "rows, in this order"
        )
    counts = dict(found)
    for outcome in outcomes:
        if outcome.rows not in (0, counts.get(outcome.item_id, 0)):
            raise ValueError(f"item {outcome.item_id!r} has {counts.get(outcome.item_id, 0)} rows, not {outcome.rows}")
    return tuple(replace(outcome, rows=counts.get(outcome.item_id, 0)) for outcome in outcomes)


def read_part_record(uri: str) -> PartRecord:
    """Read the record of a part from its footer.

    Raises:
        ForeignFileError: truncated, not a part, or not under its own name.
        OSError: the storage failed.
    """
    footer = read_footer(uri)
    try:
        record = replace(PartRecord.from_json(footer.metadata_value(_PART_KEY)), num_bytes=footer.num_bytes)
    except (json.JSONDecodeError, TypeError, KeyError) as error:
        raise ForeignFileError(f"its record cannot be read ({error})") from error
    counted = sum(outcome.rows for outcome in record.outcomes)
    if record.name != stem(uri) or not counted == record.rows == footer.metadata.num_rows:
        raise ForeignFileError("its name or its number of rows is not that of its record")
    return record


def rows_per_group(footer: Footer) -> int:
    """Return the row group size that the writer of a part or shard requested."""
    return int(footer.metadata_value(_GROUP_KEY))


def _group_metadata(rows: int) -> dict[bytes, bytes]:
    return {_GROUP_KEY: str(rows).encode()}


@functools.lru_cache(maxsize=16)
def writer_options(schema: pa.Schema) -> dict[str, Any]:
    """Return parquet writer options: text with a dictionary, scalars compressed, binary columns stored as they are.

    Binary values are arrays and images, which hardly compress, and their minimum and maximum say nothing.
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
        # Uncompressed values have no other check: a flipped bit would go unnoticed.
        "write_page_checksum": True,
    }


# --- compaction: parts to shards -------------------------------------------------------------------------------------


def make_packs(parts: Iterable[tuple[str, int, int]], target_bytes: int, identity: str) -> list[Pack]:
    """Group parts, in their order, into packs of at most `target_bytes`; a larger part forms a pack of its own.

    Args:
        parts: name, number of rows and size of each.
        target_bytes: size of a shard.
        identity: identity of the parts.
    """
    packs: list[Pack] = []
    names: list[str] = []
    rows: list[int] = []
    size = 0
    for name, num_rows, num_bytes in parts:
        if names and size + num_bytes > target_bytes:
            packs.append(Pack(tuple(names), tuple(rows), size, identity))
            names, rows, size = [], [], 0
        names.append(name)
        rows.append(num_rows)
        size += num_bytes
    if names:
        packs.append(Pack(tuple(names), tuple(rows), size, identity))
    return packs


def pack_shard(table_uri: str, pack: Pack) -> ShardRecord:
    """Compact the parts of a pack into its shard, as one atomic object; an existing shard is left unchanged.

    Any process may do this. Row groups are streamed, so memory holds two of them, whatever the sizes of parts and
    shard. Every row group has the size that the parts' writer requested, even where parts ended in shorter ones, so row
    i is in group i // rows_per_group.

    Raises:
        FileNotFoundError: a part does not exist: another run has packed and published it.
        RuntimeError: a part does not hold what the pack says, or its schema differs.
    """
    uri = storage.join(table_uri, pack.name)
    with contextlib.suppress(FileNotFoundError, ForeignFileError):
        done = read_shard_record(table_uri, pack.name)
        if (done.parts, done.part_rows) == (pack.parts, pack.part_rows):
            return done
    first = read_footer(part_uri(table_uri, pack.parts[0]))
    num_rows = rows_per_group(first)
    record = {"identity": pack.identity, "parts": pack.parts, "part_rows": pack.part_rows}
    options = writer_options(first.schema)
    with storage.atomic_stream(uri) as file, pq.ParquetWriter(file, first.schema, **options) as writer:
        for group in _regrouped(_groups(table_uri, pack, first.schema), num_rows):
            writer.write_table(group, row_group_size=num_rows)
        writer.add_key_value_metadata({_SHARD_KEY: json.dumps(record), **_group_metadata(num_rows)})
    return read_shard_record(table_uri, pack.name)


def _groups(table_uri: str, pack: Pack, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the row groups of a pack's parts in order."""
    for name, num_rows in zip(pack.parts, pack.part_rows, strict=True):
        filesystem, path = storage.arrow_filesystem(part_uri(table_uri, name))
        with filesystem.open_input_file(path) as file, pq.ParquetFile(file) as part:
            if part.metadata.num_rows != num_rows:
                raise RuntimeError(f"part {name} holds {part.metadata.num_rows} rows, not {num_rows}")
            if not part.schema_arrow.remove_metadata().equals(schema):
                raise RuntimeError(f"part {name} has another schema than part {pack.parts[0]}")
            for group in range(part.num_row_groups):
                yield part.read_row_group(group)


def _regrouped(groups: Iterable[pa.Table], num_rows: int) -> Iterator[pa.Table]:
    """Yield the same rows in tables of exactly `num_rows`; the last may be shorter."""
    rest: pa.Table | None = None
    for group in groups:
        rest = group if rest is None else pa.concat_tables([rest, group])
        while rest.num_rows >= num_rows:
            yield rest.slice(0, num_rows)
            rest = rest.slice(num_rows)
    if rest is not None and rest.num_rows:
        yield rest


def read_shard_record(table_uri: str, name: str) -> ShardRecord:
    """Read the record of a shard from its footer; `name` is its path in the table.

    Raises:
        ForeignFileError: truncated, or not a shard.
        OSError: the storage failed; `FileNotFoundError` if the shard does not exist.
    """
    footer = read_footer(storage.join(table_uri, name))
    try:
        values = json.loads(footer.metadata_value(_SHARD_KEY))
        record = ShardRecord(
            name=name,
            identity=values["identity"],
            rows=footer.metadata.num_rows,
            num_bytes=footer.num_bytes,
            parts=tuple(values["parts"]),
            part_rows=tuple(values["part_rows"]),
            rows_per_group=rows_per_group(footer),
        )
    except (json.JSONDecodeError, TypeError, KeyError) as error:
        raise ForeignFileError(f"its record cannot be read ({error})") from error
    if record.rows != sum(record.part_rows):
        raise ForeignFileError("its number of rows is not that of its record")
    return record
