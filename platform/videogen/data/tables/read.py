"""Reader of published tables: validation, index scans, row groups and whole rows, with retries of storage failures."""

import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from videogen import storage
from videogen.cache import ByteCache
from videogen.data.tables.files import ROW, SHARD
from videogen.data.tables.index import index_schema, read_index, require_index
from videogen.data.tables.manifest import TableKind, read_valid_manifest
from videogen.errors import UserError
from videogen.hashing import content_hash

logger = logging.getLogger(__name__)

Row = dict[str, Any]
"""Values by column name: numpy arrays, strings, numbers, lists."""

SHAPE_SUFFIX, DTYPE_SUFFIX = "_shape", "_dtype"
"""Columns beside the bytes of an array NAME (in C order): its shape, and its type by numpy's name."""

Value = TypeVar("Value")

_ATTEMPTS = 4
_FIRST_WAIT_S = 0.5
_NETWORK_LIBRARIES = {"aiobotocore", "aiohttp", "botocore", "urllib3"}
"""Libraries whose exceptions are not converted; some of them are no subclass of `OSError`."""


# --- retries ---------------------------------------------------------------------------------------------------------


class ShardReadError(OSError):
    """The storage failed to deliver a shard at every attempt; a later run may succeed."""


def read_shard(
    uri: str, read: Callable[[], Value], attempts: int = _ATTEMPTS, first_wait_s: float = _FIRST_WAIT_S
) -> Value:
    """Return `read()`, which reads from the shard at `uri`; retry storage failures with exponential backoff.

    Raises:
        ShardReadError: the storage failed at every attempt, or denies access.
        UserError: the shard is damaged or missing.
    """
    for attempt in range(1, attempts + 1):
        try:
            return read()
        except Exception as error:
            if not (_is_damage(error) or _is_storage_failure(error)):
                raise
            reason = f"{type(error).__name__}: {' '.join(str(error).split()).rstrip('.')}"
            if isinstance(error, FileNotFoundError):
                raise UserError(
                    f"Shard {uri!r} is missing although its table names it: do not change a table that is in use; "
                    f"restore the shard or make the table again."
                ) from error
            # An interrupted transfer may look like damage, hence a second attempt.
            if _is_damage(error) and attempt > 1:
                raise UserError(f"Shard {uri!r} is damaged ({reason}): remove it and make the table again.") from error
            if attempt == attempts or isinstance(error, PermissionError):
                raise ShardReadError(
                    f"shard {uri!r} cannot be read after {attempt} attempts ({reason}): check "
                    f"{'the network and the credentials' if storage.is_remote(uri) else 'the disk'}, then start again"
                ) from error
            wait_s = first_wait_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
            logger.warning("%s: %s; attempt %d of %d in %.1f s", uri, reason, attempt + 1, attempts, wait_s)
            time.sleep(wait_s)
    raise ValueError(f"attempts must be at least 1, not {attempts}")


def _is_damage(error: Exception) -> bool:
    # Arrow reports invalid bytes as ArrowInvalid, or as a plain OSError without an error number.
    return isinstance(error, pa.ArrowInvalid) or (type(error) is OSError and error.errno is None)


def _is_storage_failure(error: Exception) -> bool:
    # A `StorageError` is both a `UserError` and an `OSError`, and may be temporary.
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in _NETWORK_LIBRARIES


# --- tables ----------------------------------------------------------------------------------------------------------


class Shard(NamedTuple):
    """One shard of a table."""

    name: str
    """Path in the table."""
    rows: int
    num_bytes: int
    rows_per_group: int


class PublishedTable:
    """Current snapshot of a table, read through its index; subclasses add the meaning of a kind's rows.

    Args:
        uri: absolute URI of its folder.
        manifest: validated manifest.
        kind: its kind.
    """

    kinds: ClassVar[tuple[TableKind, ...]] = ()
    """Kinds of tables that `open` accepts."""
    label: ClassVar[str] = "Table"
    """Default name of the table in error messages."""
    cache_bytes: ClassVar[int] = 256 << 20
    """Capacity of the cache of row groups."""

    def __init__(self, uri: str, manifest: dict[str, Any], kind: TableKind) -> None:
        self.uri = uri
        self.manifest = manifest
        self.kind = kind
        self._row_groups: ByteCache[pa.Table] = ByteCache(self.cache_bytes)
        self._footers: dict[int, pq.FileMetaData] = {}

    @classmethod
    def open(cls, uri: str, what: str | None = None, kinds: Sequence[TableKind] = ()) -> Self:
        """Open the published table at `uri`.

        Args:
            uri: its folder.
            what: names the table in error messages; default: `label`.
            kinds: accepted kinds; default: those of the class.

        Raises:
            UserError: there is no such table, its kind or schema version is another one, or its manifest is damaged.
        """
        location = storage.absolute(uri)
        manifest, kind = read_valid_manifest(location, kinds or cls.kinds, what or cls.label)
        return cls(location, manifest, kind)

    # --- structure ---------------------------------------------------------------------------------------------------

    @property
    def fingerprint(self) -> str:
        """Hash of everything that determines the rows and their order, by the names of files in the manifest."""
        return content_hash(self.kind.content_of(self.manifest))

    @cached_property
    def shards(self) -> list[Shard]:
        """The shards."""
        return [
            Shard(shard["name"], shard["rows"], shard["bytes"], shard["rows_per_group"])
            for shard in self.manifest["shards"]
        ]

    @cached_property
    def index_schema(self) -> pa.Schema:
        """Columns of the index, which conditions may use; an empty schema if the table has no rows."""
        return index_schema(self.uri, self.manifest)

    @cached_property
    def shard_schema(self) -> pa.Schema:
        """Columns of the shards; an empty schema if there is no shard."""
        if not self.shards:
            return pa.schema([])
        uri = storage.join(self.uri, self.shards[0].name)

        def read() -> pa.Schema:
            filesystem, path = storage.arrow_filesystem(uri)
            with filesystem.open_input_file(path) as file:
                return pq.read_schema(file).remove_metadata()

        return read_shard(uri, read)

    @cached_property
    def array_columns(self) -> list[str]:
        """Columns that `rows` returns as arrays."""
        names = self.shard_schema.names
        return [name for name in names if f"{name}{SHAPE_SUFFIX}" in names or name in self.kind.vector_columns]

    @cached_property
    def array_metadata_columns(self) -> list[str]:
        """Columns with the shapes and types of arrays, which `rows` omits."""
        return [f"{name}{suffix}" for name in self.array_columns for suffix in (SHAPE_SUFFIX, DTYPE_SUFFIX)]

    def require_index(self) -> None:
        """Check the footer of every index file, which takes seconds.

        Raises:
            UserError: a file is missing or damaged.
        """
        require_index(self.uri, self.manifest)

    # --- index -------------------------------------------------------------------------------------------------------

    def batches(self, columns: Sequence[str] | None = None, where: str | None = None) -> Iterator[pa.RecordBatch]:
        """Yield rows of the index in the table's order.

        Args:
            columns: columns to read; None for all.
            where: SQL condition over the columns of the index; None for all rows.

        Raises:
            UserError: an unknown column, an invalid condition, or a damaged index.
        """
        yield from read_index(self.uri, self.manifest, columns, where)

    def count(self, where: str | None = None) -> int:
        """Count the rows that fulfil the condition `where`."""
        return sum(len(batch) for batch in self.batches([ROW], where))

    # --- shards ------------------------------------------------------------------------------------------------------

    def cached_row_group(self, shard: int, group: int, columns: Sequence[str]) -> pa.Table:
        """Return `read_row_group` through a cache of `cache_bytes`."""
        return self._row_groups.get((shard, group, *columns), lambda: self.read_row_group(shard, group, columns))

    def read_row_group(self, shard: int, group: int, columns: Sequence[str]) -> pa.Table:
        """Read columns of one row group of a shard.

        Raises:
            ShardReadError: the storage failed at every attempt.
            UserError: the shard is damaged or missing.
        """
        uri = storage.join(self.uri, self.shards[shard].name)

        def read() -> pa.Table:
            filesystem, path = storage.arrow_filesystem(uri)
            with filesystem.open_input_file(path) as file:
                metadata = self._footers.get(shard) or pq.read_metadata(file)
                self._footers[shard] = metadata
                # On remote storage, pre_buffer fetches neighbouring columns in one request.
                shard_file = pq.ParquetFile(
                    file, metadata=metadata, page_checksum_verification=True, pre_buffer=storage.is_remote(uri)
                )
                # Callers bring their own threads; Arrow's are one pool of OMP_NUM_THREADS for the whole process.
                return shard_file.read_row_group(group, columns=list(columns), use_threads=False)

        return read_shard(uri, read)

    # --- whole rows --------------------------------------------------------------------------------------------------

    def rows(self, where: str | None = None, exclude: Sequence[str] = ()) -> Iterator[Row]:
        """Yield whole rows in the table's order: the columns of the index, and those that only the shard holds.

        Arrays are returned with their shape and type.

        Args:
            where: SQL condition over the columns of the index.
            exclude: columns to omit.

        Raises:
            UserError: `where` is invalid, or a shard is damaged or missing.
        """
        for batch in self.batches(None, where):
            for record in batch.to_pylist():
                yield self._whole_row(record, exclude)

    def rows_at(self, positions: Sequence[int], where: str | None = None, exclude: Sequence[str] = ()) -> list[Row]:
        """Return whole rows by position; `positions` ascend and count the rows that fulfil `where`, from 0.

        Raises:
            UserError: as of `rows`.
        """
        found: list[Row] = []
        start = 0
        for batch in self.batches(None, where):
            wanted = [position - start for position in positions if start <= position < start + len(batch)]
            found += [self._whole_row(batch.slice(offset, 1).to_pylist()[0], exclude) for offset in wanted]
            start += len(batch)
            if len(found) == len(positions):
                break
        return found

    def _whole_row(self, record: Row, exclude: Sequence[str]) -> Row:
        shard, row = (record.pop(name) for name in (SHARD, ROW))
        whole = record | self._shard_row(shard, row, (*record, *exclude))
        return {name: value for name, value in whole.items() if name not in exclude}

    def _shard_row(self, shard: int, row: int, known: Sequence[str]) -> Row:
        """Return the columns of one row of a shard that are not `known`, arrays with their shape."""
        arrays, metadata = self.array_columns, self.array_metadata_columns
        wanted = [name for name in self.shard_schema.names if name not in known]
        group, offset = divmod(row, self.shards[shard].rows_per_group)
        record = self.cached_row_group(shard, group, wanted).slice(offset, 1).to_pylist()[0]
        return {
            name: _array(name, record) if name in arrays and value is not None else value
            for name, value in record.items()
            if name not in metadata
        }


def _array(name: str, record: Row) -> np.ndarray:
    flat = np.frombuffer(record[name], np.dtype(record.get(f"{name}{DTYPE_SUFFIX}") or np.float16))
    return flat.reshape(record.get(f"{name}{SHAPE_SUFFIX}") or -1)
