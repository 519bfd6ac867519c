"""Any finished table, whatever its kind: its manifest, the rows of its index, and whole rows with their arrays."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from videogen import storage
from videogen.data.datasets.dataset import ByteCache, Row
from videogen.data.tables.files import MANIFEST_NAME
from videogen.data.tables.manifest import require_whole
from videogen.data.tables.shard_reading import read_shard
from videogen.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa


_SHAPE, _DTYPE = "_shape", "_dtype"
"""Beside the bytes of an array NAME: its shape, and its type by numpy's name."""
_LIES_AT = ("shard", "row")
_CACHE_BYTES = 256 << 20
_VECTORS = ("embedding",)
"""Columns of bytes that are float16 vectors, without a shape of their own."""


class Shard(NamedTuple):
    """One data file."""

    name: str
    """Its path in the table."""
    rows: int
    num_bytes: int
    rows_per_group: int


class FinishedTable:
    """A table with a manifest.

    Args:
        uri: its folder.
        manifest: content of its manifest.json.
    """

    def __init__(self, uri: str, manifest: Mapping[str, Any]) -> None:
        self.uri = uri
        self.manifest = manifest
        self._groups: ByteCache[pa.Table] = ByteCache(_CACHE_BYTES)

    @classmethod
    def open(cls, uri: str, what: str = "Table") -> "FinishedTable":
        """Open the table at `uri`.

        Raises:
            UserError: no finished table there, or one that this release does not read.
        """
        location = storage.absolute(uri)
        storage.require_readable(location, what)
        manifest_uri = storage.join(location, MANIFEST_NAME)
        if not storage.exists(manifest_uri):
            raise UserError(
                f"{what} {uri!r} holds no {MANIFEST_NAME}: finish the job that writes it (jobs/ingest.py, "
                f"jobs/encode_latents.py) first."
            )
        manifest = storage.read_json(manifest_uri)
        if not isinstance(manifest, dict) or not {"kind", "counts", "shards", "index"} <= set(manifest):
            raise UserError(
                f"{what} {uri!r} is no table of this release (kind, counts, shards and index are not all in its "
                f"{MANIFEST_NAME}): make it again."
            )
        _require_version(manifest, f"{what} {uri!r}")
        require_whole(manifest, manifest_uri)
        return cls(location, manifest)

    @property
    def kind(self) -> str:
        """What its rows are: "clips" or "latents"."""
        return str(self.manifest["kind"])

    @property
    def shards(self) -> list[Shard]:
        """Its data files."""
        return [
            Shard(shard["name"], shard["rows"], shard["bytes"], shard["rows_per_group"])
            for shard in self.manifest["shards"]
        ]

    @cached_property
    def index_schema(self) -> "pa.Schema":
        """The columns of the index, which is what expressions may name; none if the table has no row."""
        from videogen.data.tables.index import index_schema

        return index_schema(self.uri, self.manifest)

    @cached_property
    def shard_schema(self) -> "pa.Schema":
        """The columns of the shards; none if there is no shard."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        return self._read(0, pq.read_schema).remove_metadata() if self.shards else pa.schema([])

    @property
    def array_columns(self) -> list[str]:
        """Names of the columns that `rows` gives as arrays."""
        names = self.shard_schema.names
        return [name for name in names if f"{name}{_SHAPE}" in names or name in _VECTORS]

    @property
    def array_notes(self) -> list[str]:
        """Names of the columns that say of an array what it is; `rows` leaves them out."""
        return [f"{name}{suffix}" for name in self.array_columns for suffix in (_SHAPE, _DTYPE)]

    def index(self, columns: Sequence[str] | None = None, where: str | None = None) -> "Iterator[pa.RecordBatch]":
        """Yield the index's rows in the table's order, those for which the SQL expression `where` holds.

        Raises:
            UserError: `where` is no expression over the index's columns.
        """
        from videogen.data.tables.index import read_index

        yield from read_index(self.uri, self.manifest, columns, where)

    def rows(self, where: str | None = None, but: Sequence[str] = ()) -> Iterator[Row]:
        """Yield whole rows in the table's order: what the index says, and what only the shard holds.

        Arrays are numpy arrays in their own shape and type.

        Args:
            where: SQL expression over the index.
            but: columns to leave out.

        Raises:
            UserError: `where` is no expression over the index's columns, or a shard is damaged or gone.
        """
        for batch in self.index(None, where):
            for record in batch.to_pylist():
                yield self._whole(record, but)

    def rows_at(self, positions: Sequence[int], where: str | None = None, but: Sequence[str] = ()) -> list[Row]:
        """Return some whole rows; `positions` rise and count the rows for which `where` holds, from 0.

        Raises:
            UserError: as of `rows`.
        """
        found: list[Row] = []
        start = 0
        for batch in self.index(None, where):
            wanted = [position - start for position in positions if start <= position < start + len(batch)]
            found += [self._whole(batch.slice(offset, 1).to_pylist()[0], but) for offset in wanted]
            start += len(batch)
            if len(found) == len(positions):
                break
        return found

    def count(self, where: str | None = None) -> int:
        """Return the number of rows for which `where` holds."""
        return sum(len(batch) for batch in self.index(["row"], where))

    def _whole(self, record: dict[str, Any], but: Sequence[str]) -> Row:
        shard, row = (record.pop(name) for name in _LIES_AT)
        whole = record | self._row(shard, row, (*record, *but))
        return {name: value for name, value in whole.items() if name not in but}

    def _row(self, shard: int, row: int, known: Sequence[str]) -> Row:
        """Return the columns of one row of a shard that are not `known`, arrays in their shape."""
        import pyarrow.parquet as pq

        arrays = self.array_columns
        wanted = [name for name in self.shard_schema.names if name not in known]
        group, offset = divmod(row, self.shards[shard].rows_per_group)

        def read() -> "pa.Table":
            return self._read(shard, lambda file: pq.ParquetFile(file).read_row_group(group, columns=wanted))

        record = self._groups.get((shard, group, *wanted), read).slice(offset, 1).to_pylist()[0]
        notes = self.array_notes
        return {
            name: _array(name, record) if name in arrays and value is not None else value
            for name, value in record.items()
            if name not in notes
        }

    def _read(self, shard: int, read: Any) -> Any:
        uri = storage.join(self.uri, self.shards[shard].name)
        filesystem, path = storage.arrow_filesystem(uri)

        def attempt() -> Any:
            with filesystem.open_input_file(path) as file:
                return read(file)

        return read_shard(uri, attempt)


def _array(name: str, record: Mapping[str, Any]) -> np.ndarray:
    flat = np.frombuffer(record[name], np.dtype(record.get(f"{name}{_DTYPE}") or np.float16))
    return flat.reshape(record.get(f"{name}{_SHAPE}") or -1)


def _require_version(manifest: Mapping[str, Any], what: str) -> None:
    from videogen.data.datasets import clips_table, latents_schema

    versions = {clips_table.KIND: clips_table.SCHEMA_VERSION, latents_schema.KIND: latents_schema.SCHEMA_VERSION}
    kind, version = manifest["kind"], manifest.get("schema_version")
    if kind not in versions:
        raise UserError(
            f"{what} is a table of {kind!r}, but this release reads {' and '.join(versions)}: make it again."
        )
    if versions[kind] != version:
        raise UserError(
            f"{what} has schema version {version!r}, this release reads {versions[kind]} of a table of {kind}: make it "
            f"again."
        )
