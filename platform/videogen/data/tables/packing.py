"""Packing: many small parts become few large shards. Which parts make which shard depends on nothing but the parts."""

import contextlib
import json
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from videogen import storage
from videogen.data.tables.files import ForeignFileError, atomic_stream, read_footer
from videogen.data.tables.parts import group_note, part_uri, rows_per_group, writer_options
from videogen.data.tables.records import Pack, ShardRecord

_SHARD_KEY = b"videogen.shard"


def make_packs(parts: Iterable[tuple[str, int, int]], target_bytes: int, identity: str) -> list[Pack]:
    """Group parts, in their order, into packs of at most `target_bytes` (a larger part makes one alone).

    Args:
        parts: name, rows and bytes of each.
        target_bytes: size of a shard.
        identity: that of the parts.
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
    """Write the shard of a pack, in any process; one atomic object, and nothing to do if it is there already.

    Row groups are streamed: memory holds two of them, however large parts and shard are. Every row group of the shard
    has as many rows as the parts' writer asked for, also where parts ended in shorter ones, so that row i lies in group
    i // rows_per_group.

    Raises:
        FileNotFoundError: a part is gone: another run has packed and published it.
        RuntimeError: a part does not hold what the pack says, or has another schema than the others.
    """
    uri = storage.join(table_uri, pack.name)
    with contextlib.suppress(FileNotFoundError, ForeignFileError):
        done = read_shard_record(table_uri, pack.name)
        if (done.parts, done.part_rows) == (pack.parts, pack.part_rows):
            return done
    first = read_footer(part_uri(table_uri, pack.parts[0]))
    num_rows = rows_per_group(first)
    record = {"identity": pack.identity, "parts": pack.parts, "part_rows": pack.part_rows}
    with atomic_stream(uri) as file, pq.ParquetWriter(file, first.schema, **writer_options(first.schema)) as writer:
        for group in _regrouped(_groups(table_uri, pack, first.schema), num_rows):
            writer.write_table(group, row_group_size=num_rows)
        writer.add_key_value_metadata({_SHARD_KEY: json.dumps(record), **group_note(num_rows)})
    return read_shard_record(table_uri, pack.name)


def _groups(table_uri: str, pack: Pack, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the row groups of a pack's parts, one after another."""
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
    """Yield the same rows in tables of exactly `num_rows`, but for the last."""
    rest: pa.Table | None = None
    for group in groups:
        rest = group if rest is None else pa.concat_tables([rest, group])
        while rest.num_rows >= num_rows:
            yield rest.slice(0, num_rows)
            rest = rest.slice(num_rows)
    if rest is not None and rest.num_rows:
        yield rest


def read_shard_record(table_uri: str, name: str) -> ShardRecord:
    """Return the record of a shard from its footer; `name` is its path in the table.

    Raises:
        ForeignFileError: half written, or not a shard.
        OSError: the storage failed; `FileNotFoundError` if there is no such shard.
    """
    footer = read_footer(storage.join(table_uri, name))
    try:
        values = json.loads(footer.note(_SHARD_KEY))
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
