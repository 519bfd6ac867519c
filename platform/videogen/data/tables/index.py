"""Index of a table: one row per live row with all scalars and the location of the rest, in a handful of files.

The ledger locates the rows of planned items and writes the index; readers filter it, so counting, filtering and
ordering ten million rows opens no shard.
"""

# ruff: noqa: S608 - statements consist of our own names; values are passed as parameters

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from videogen import storage
from videogen.data.tables.data_files import read_shard_record, writer_options
from videogen.data.tables.files import (
    INDEX,
    MANIFEST_NAME,
    ROW,
    SHARD,
    SUFFIX,
    ForeignFileError,
    Pack,
    ShardRecord,
    read_footer,
)
from videogen.data.tables.outcomes import OutcomeDatabase
from videogen.data.tables.plan import Plan
from videogen.data.tables.query import select
from videogen.errors import UserError

ROWS_PER_INDEX_FILE = 1_000_000
_ROWS_PER_BATCH = 65_536
_ROWS_PER_INDEX_GROUP = 65_536
_COPY_BYTES = 1 << 20


# --- location of rows -------------------------------------------------------------------------------------------------


class IndexRows:
    """Index of the planned items that are ok: in canonical order, with the location of their rows.

    Args:
        outcomes: settled, with the planned items.
        table_uri: folder of the table.
        packs: shards to publish in addition to the published ones.
        published: current manifest; {} if there is none.

    Raises:
        RuntimeError: a pack has not been packed.
    """

    def __init__(
        self, outcomes: OutcomeDatabase, table_uri: str, packs: Sequence[Pack], published: Mapping[str, Any]
    ) -> None:
        self._outcomes = outcomes
        self._uri = table_uri
        self.packed = [self._record_of(pack) for pack in packs]
        names = outcomes.locate(self.packed)
        known = {shard["name"]: shard for shard in published.get("shards", [])}
        known |= {record.name: record.as_manifest() for record in self.packed}
        self.shards: list[dict[str, Any]] = [
            known.get(name) or read_shard_record(table_uri, name).as_manifest() for name in names
        ]
        """Manifest entries of the shards that hold a row; the column `shard` is an index into this list."""
        self.num_rows = outcomes.database.number("SELECT count(*) FROM located")

    def _record_of(self, pack: Pack) -> ShardRecord:
        try:
            return read_shard_record(self._uri, pack.name)
        except (FileNotFoundError, ForeignFileError) as error:
            raise RuntimeError(f"{pack.name} of {self._uri!r} is not packed yet: call pack_shard first") from error

    def batches(self, plan: Plan, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield one row per row of the shards: the planned columns, `columns` of the shard, `shard` and `row`."""
        table, names = "located", []
        if columns and self.shards:
            table, names = "gathered", self._gather(columns)
        for items, rows in plan.join(self._outcomes.by_ordinal(table)):
            added = [
                (field, rows[f"c{number}"].combine_chunks().cast(field.type)) for number, field in enumerate(names)
            ]
            places = [(pa.field(name, pa.int32()), rows[name].combine_chunks()) for name in (SHARD, ROW)]
            batch = items
            for field, values in [*added, *places]:
                batch = batch.append_column(field, values)
            yield batch

    def _gather(self, columns: Sequence[str]) -> list[pa.Field]:
        """Sort columns of all shards into the order of `located`, as `gathered(ordinal, c0, c1, ..., shard, row)`."""
        database = self._outcomes.database
        fields: list[pa.Field] = []
        for number, shard in enumerate(self.shards):
            filesystem, path = storage.arrow_filesystem(storage.join(self._uri, shard["name"]))
            with filesystem.open_input_file(path) as file, pq.ParquetFile(file) as parquet:
                if not fields:
                    fields = [parquet.schema_arrow.field(name) for name in columns]
                    cells = [pa.field(f"c{place}", field.type) for place, field in enumerate(fields)]
                    database.create_empty("cells", pa.schema([*cells, (SHARD, pa.int32()), (ROW, pa.int32())]))
                first_row = 0
                for batch in parquet.iter_batches(_ROWS_PER_BATCH, columns=list(columns)):
                    values = {f"c{place}": batch[field.name] for place, field in enumerate(fields)}
                    values[SHARD] = pa.array([number] * batch.num_rows, pa.int32())
                    values[ROW] = pa.array(range(first_row, first_row + batch.num_rows), pa.int32())
                    database.insert("cells", pa.table(values))
                    first_row += batch.num_rows
        names = ", ".join(f"c{place}" for place in range(len(fields)))
        query = f"SELECT ordinal, {SHARD}, {ROW}, {names} FROM located JOIN cells USING ({SHARD}, {ROW})"
        database.create("gathered", f"{query} ORDER BY ordinal, {ROW}")
        return fields


# --- writing ---------------------------------------------------------------------------------------------------------


def write_index(
    table_uri: str, batches: Iterable[pa.RecordBatch], rows_per_file: int = ROWS_PER_INDEX_FILE
) -> dict[str, Any]:
    """Write the index of a table; equal rows give identical files, however they are divided into batches.

    Files of earlier indexes are kept, for readers of earlier snapshots.

    Args:
        table_uri: folder of the table.
        batches: all rows in canonical order, of one schema; memory holds one row group.
        rows_per_file: maximum number of rows of a file.

    Returns:
        The index section of the manifest: {"files": paths in the table, "rows": their number, "hash": of the content}.
    """
    files: list[IO[bytes]] = []
    writer: pq.ParquetWriter | None = None
    num_rows, in_file = 0, 0
    try:
        for group in _row_groups(batches, min(_ROWS_PER_INDEX_GROUP, rows_per_file)):
            if writer is None or in_file + group.num_rows > rows_per_file:
                if writer is not None:
                    writer.close()
                # Unnamed, so that a killed process leaves nothing behind.
                files.append(tempfile.TemporaryFile())  # noqa: SIM115 - closed below, all together
                writer, in_file = pq.ParquetWriter(files[-1], group.schema, **writer_options(group.schema)), 0
            writer.write_table(group)
            num_rows += group.num_rows
            in_file += group.num_rows
        if writer is not None:
            writer.close()
        key = _content_hash(files)
        names = [f"{INDEX}/{key}-{number:05}{SUFFIX}" for number in range(len(files))]
        for name, file in zip(names, files, strict=True):
            _upload(file, storage.join(table_uri, name))
    finally:
        for file in files:
            file.close()
    return {"files": names, "rows": num_rows, "hash": key}


def _row_groups(batches: Iterable[pa.RecordBatch], num_rows: int) -> Iterator[pa.Table]:
    """Yield the same rows in tables of exactly `num_rows`; the last may be shorter."""
    held: list[pa.RecordBatch] = []
    num_held = 0
    for batch in batches:
        rest = batch
        while num_held + rest.num_rows >= num_rows:
            cut = num_rows - num_held
            yield pa.Table.from_batches([*held, rest.slice(0, cut)]).combine_chunks()
            held, num_held, rest = [], 0, rest.slice(cut)
        if rest.num_rows:
            held.append(rest)
            num_held += rest.num_rows
    if held:
        yield pa.Table.from_batches(held).combine_chunks()


def _content_hash(files: Sequence[IO[bytes]]) -> str:
    value = hashlib.sha256()
    for file in files:
        file.seek(0)
        while block := file.read(_COPY_BYTES):
            value.update(block)
    return value.hexdigest()[:20]


def _upload(file: IO[bytes], uri: str) -> None:
    if storage.exists(uri):  # the name is a hash of the content
        return
    file.seek(0)
    with storage.atomic_stream(uri) as target:
        shutil.copyfileobj(file, target, _COPY_BYTES)


# --- reading ---------------------------------------------------------------------------------------------------------


def index_files(table_uri: str, manifest: Mapping[str, Any]) -> list[str]:
    """Return the URIs of the index files that a manifest names."""
    return [storage.join(table_uri, name) for name in manifest["index"]["files"]]


def require_index(table_uri: str, manifest: Mapping[str, Any]) -> None:
    """Check the footer of every index file.

    Raises:
        UserError: a file is missing or damaged.
    """
    with _index_errors(table_uri):
        for uri in index_files(table_uri, manifest):
            read_footer(uri)


def index_schema(table_uri: str, manifest: Mapping[str, Any]) -> pa.Schema:
    """Return the columns of a table's index; an empty schema if the table has no rows."""
    files = index_files(table_uri, manifest)
    with _index_errors(table_uri):
        return read_footer(files[0]).schema if files else pa.schema([])


def read_index(
    table_uri: str,
    manifest: Mapping[str, Any],
    columns: Sequence[str] | None = None,
    where: str | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a table's index in order; `pa.Table.from_batches` makes one table of them.

    Args:
        table_uri: folder of the table.
        manifest: its manifest.
        columns: columns to read; None for all.
        where: SQL condition over the columns of the index, e.g. "score >= 0.3 and width >= 512".

    Raises:
        UserError: immediately, for an unknown column or an invalid condition; while reading, for a damaged index.
    """
    with _index_errors(table_uri):
        return _with_index_errors(table_uri, select(index_files(table_uri, manifest), columns, where))


def _with_index_errors(table_uri: str, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    with _index_errors(table_uri):
        yield from batches


@contextlib.contextmanager
def _index_errors(table_uri: str) -> Iterator[None]:
    """Convert errors about a missing or damaged index into `UserError`."""
    try:
        yield
    except UserError:
        raise
    except (ForeignFileError, pa.ArrowException, OSError) as error:
        missing = isinstance(error, FileNotFoundError)
        if isinstance(error, OSError) and error.errno is not None and not missing:
            raise  # a storage failure says nothing about the file; Arrow's errors about bytes have no number
        reason = "a file is missing" if missing else (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(
            f"The index of {table_uri!r} cannot be read ({reason}): remove {MANIFEST_NAME} and the folder {INDEX} "
            f"there and run the job that wrote the table again, which repeats no finished work."
        ) from error
