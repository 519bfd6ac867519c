"""The index of a table: one row a live row, in canonical order, with all scalars and where the rest of the row lies.

It is a handful of parquet files, so counting, filtering and ordering ten million rows opens no shard.
"""

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from videogen import storage
from videogen.data.tables.files import INDEX, MANIFEST_NAME, SUFFIX, ForeignFileError, atomic_stream, read_footer
from videogen.data.tables.parts import writer_options
from videogen.data.tables.query import select
from videogen.errors import UserError

ROWS_PER_FILE = 1_000_000
_ROWS_PER_GROUP = 65_536
_COPY_BYTES = 1 << 20


def write_index(
    table_uri: str, batches: Iterable[pa.RecordBatch], rows_per_file: int = ROWS_PER_FILE
) -> dict[str, Any]:
    """Write the index of a table; the same rows always give the same files, however they are cut into batches.

    The files are new beside those of an earlier index, which readers of an earlier manifest go on reading.

    Args:
        table_uri: folder of the table.
        batches: all rows in canonical order, of one schema; memory holds one row group.
        rows_per_file: where a new file is begun.

    Returns:
        What the manifest says of it: {"files": paths in the table, "rows": their number, "hash": of the content}.
    """
    files: list[IO[bytes]] = []
    writer: pq.ParquetWriter | None = None
    num_rows, in_file = 0, 0
    try:
        for group in _groups(batches, min(_ROWS_PER_GROUP, rows_per_file)):
            if writer is None or in_file + group.num_rows > rows_per_file:
                if writer is not None:
                    writer.close()
                # Without a name, so that nothing is left when we are killed.
                files.append(tempfile.TemporaryFile())  # noqa: SIM115 - closed below, all together
                writer, in_file = pq.ParquetWriter(files[-1], group.schema, **writer_options(group.schema)), 0
            writer.write_table(group)
            num_rows += group.num_rows
            in_file += group.num_rows
        if writer is not None:
            writer.close()
        key = _hash(files)
        names = [f"{INDEX}/{key}-{number:05}{SUFFIX}" for number in range(len(files))]
        for name, file in zip(names, files, strict=True):
            _publish(file, storage.join(table_uri, name))
    finally:
        for file in files:
            file.close()
    return {"files": names, "rows": num_rows, "hash": key}


def _groups(batches: Iterable[pa.RecordBatch], num_rows: int) -> Iterator[pa.Table]:
    """Yield the same rows in tables of exactly `num_rows`, but for the last."""
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


def _hash(files: Sequence[IO[bytes]]) -> str:
    value = hashlib.sha256()
    for file in files:
        file.seek(0)
        while block := file.read(_COPY_BYTES):
            value.update(block)
    return value.hexdigest()[:20]


def _publish(file: IO[bytes], uri: str) -> None:
    if storage.exists(uri):  # the name is a hash of the content
        return
    file.seek(0)
    with atomic_stream(uri) as target:
        shutil.copyfileobj(file, target, _COPY_BYTES)


def index_files(table_uri: str, manifest: Mapping[str, Any]) -> list[str]:
    """Return the URIs of the index that a manifest names."""
    return [storage.join(table_uri, name) for name in manifest["index"]["files"]]


def require_index(table_uri: str, manifest: Mapping[str, Any]) -> None:
    """Look at the end of each file of the index.

    Raises:
        UserError: one of them is gone or damaged.
    """
    with _explained(table_uri):
        for uri in index_files(table_uri, manifest):
            read_footer(uri)


def index_schema(table_uri: str, manifest: Mapping[str, Any]) -> pa.Schema:
    """Return the columns of a table's index; none if the table has no rows."""
    files = index_files(table_uri, manifest)
    with _explained(table_uri):
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
        columns: which; None for all.
        where: SQL over the index's columns that a row must fulfil, e.g. "motion >= 0.3 and width >= 512".

    Raises:
        UserError: at once, in one sentence, for an unknown column or what is wrong with `where`; later on too, for an
            index that is damaged.
    """
    with _explained(table_uri):
        return _explaining(table_uri, select(index_files(table_uri, manifest), columns, where))


def _explaining(table_uri: str, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    with _explained(table_uri):
        yield from batches


@contextlib.contextmanager
def _explained(table_uri: str) -> Iterator[None]:
    """Say in one sentence that an index is gone or damaged."""
    try:
        yield
    except UserError:
        raise
    except (ForeignFileError, pa.ArrowException, OSError) as error:
        gone = isinstance(error, FileNotFoundError)
        if isinstance(error, OSError) and error.errno is not None and not gone:
            raise  # storage that fails says nothing of the file; Arrow's complaints about bytes have no number
        reason = "a file of it is gone" if gone else (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(
            f"The index of {table_uri!r} cannot be read ({reason}): remove {MANIFEST_NAME} and the folder {INDEX} "
            f"there and run the job that wrote the table again, which does nothing twice."
        ) from error
