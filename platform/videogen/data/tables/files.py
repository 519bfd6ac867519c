"""Files of a table: folders and names, parquet footers, and the records that are stored in them.

A *work item* is planned, processed and retried as a whole, and ends in exactly one status. Workers process items in
batches; the file that a worker commits for a batch is a *part*. Compaction packs parts into *shards*, which readers
open. Records are plain values that can be pickled; footers and commit files store them as JSON.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from videogen import storage
from videogen.hashing import json_hash

logger = logging.getLogger(__name__)
_Record = TypeVar("_Record")

PARTS, SHARDS, COMMITS, INDEX, HISTORY = "parts", "shards", "commits", "index", "history"
"""Folders of a table."""
MANIFEST_NAME, ERRORS_NAME, LEASE_NAME = "manifest.json", "errors.parquet", "lease.json"
SUFFIX = ".parquet"

OK, FILTERED, FAILED = "ok", "filtered", "failed"
STATUSES = (OK, FILTERED, FAILED)
"""Final statuses of an item, best first: if an item has several outcomes, the first status in this order counts."""

ITEM_ID = "item_id"
"""Column of every data file: the item that a row belongs to."""

ATTEMPTS_BEFORE = "attempts_before"
"""Column of items that are retried: number of failed attempts so far."""

SHARD, ROW = "shard", "row"
"""Last two columns of an index: position of the shard in the manifest, and row in that shard."""

ERRORS_SCHEMA = pa.schema(
    [
        (ITEM_ID, pa.string()),
        ("uri", pa.string()),
        ("stage", pa.string()),
        ("error", pa.string()),
        ("attempts", pa.int32()),
        ("log_tail", pa.string()),
    ]
)
"""Columns of errors.parquet and filtered.parquet, which list items and the reason for their status."""

_MAGIC = b"PAR1"
_TAIL_BYTES = 64 << 10
"""Size of the first read at the end of a file; most footers fit."""
_PARALLEL_REQUESTS = 16
"""Concurrent small requests; each mostly waits for the storage."""
_FILES_PER_STEP = 2048
"""Files requested before waiting for all of them, which bounds memory."""


# --- records ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """Final status of one work item."""

    item_id: str
    status: str
    """One of `STATUSES`."""
    rows: int = 0
    """Number of rows of the item. `write_part` counts them, so callers may leave 0."""
    uri: str = ""
    """Source of the item, as listed in errors.parquet."""
    stage: str = ""
    """Processing step that failed or filtered the item, e.g. "probe"."""
    error: str = ""
    """Reason, in a few words."""
    attempts: int = 1
    """Number of attempts over all runs; every run that retries an item adds at least one."""
    log_tail: str = ""
    """Last lines of output of a child process that died."""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"item {self.item_id!r} has the status {self.status!r}: it must be one of {STATUSES}")

    def with_prior_attempts(self, item: Mapping[str, Any]) -> Self:
        """Return the outcome with the attempts of earlier runs added, so that the latest failure has the most.

        Args:
            item: a row of `Ledger.pending`; without `attempts_before`, the outcome is returned unchanged.
        """
        before = item.get(ATTEMPTS_BEFORE)
        return self if before is None else replace(self, attempts=before + max(1, self.attempts))

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults, as JSON values."""
        return {key: value for key, value in asdict(self).items() if value != _DEFAULTS.get(key)}


_DEFAULTS = {item.name: item.default for item in fields(Outcome)}


@dataclass(frozen=True)
class PartRecord:
    """Content of a part, as stored in its footer: everything that the driver needs to know about it."""

    batch_id: str
    """Hash of the identity and of the items of the batch."""
    identity: str
    """Hash of all settings that determine the rows of an item; records of other identities are ignored."""
    rows: int
    num_bytes: int
    """Size of the file."""
    outcomes: tuple[Outcome, ...]
    """In the order of the rows: the rows of the first outcome come first."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Measurements of the batch, e.g. seconds of computation; `Ledger.metrics` sums them."""

    @property
    def name(self) -> str:
        """File name without suffix.

        The name contains a hash of the outcomes. A retry of the same batch, or a worker that outlives its driver,
        therefore writes identical content or a new file; it never overwrites rows with a failure.
        """
        return f"{self.batch_id}-{json_hash([[item.item_id, item.status, item.rows] for item in self.outcomes])[:8]}"

    def to_json(self) -> str:
        """Return the record as JSON, for a footer or a column."""
        values = {_STORED_NAMES.get(name, name): value for name, value in vars(self).items()}
        outcomes = [item.as_dict() for item in self.outcomes]
        return json.dumps({**values, "facts": dict(self.metrics), "outcomes": outcomes})

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Parse the output of `to_json`."""
        values = json.loads(text)
        for name, stored in _STORED_NAMES.items():
            values[name] = values.pop(stored)
        return cls(**{**values, "outcomes": tuple(Outcome(**item) for item in values["outcomes"])})


_STORED_NAMES = {"batch_id": "unit_id", "metrics": "facts"}
"""Stored names of renamed fields of `PartRecord`; existing tables use them."""


@dataclass(frozen=True)
class Pack:
    """Parts that are compacted into one shard, in this order."""

    parts: tuple[str, ...]
    """Names of the parts."""
    part_rows: tuple[int, ...]
    num_bytes: int
    """Total size of the parts, approximately the size of the shard."""
    identity: str

    @property
    def name(self) -> str:
        """Path of the shard in its table, e.g. "shards/0123456789abcdef0123.parquet": a hash of the parts' names."""
        return f"shards/{json_hash(self.parts)}.parquet"


@dataclass(frozen=True)
class ShardRecord:
    """Content of a shard, as stored in its footer."""

    name: str
    """Path in the table."""
    identity: str
    rows: int
    num_bytes: int
    parts: tuple[str, ...]
    """Parts that were packed into it, in the order of its rows."""
    part_rows: tuple[int, ...]
    rows_per_group: int
    """Rows of every row group except the last, so row i is in group i // rows_per_group."""

    def as_manifest(self) -> dict[str, Any]:
        """Return the shard's entry in the manifest."""
        return {"name": self.name, "rows": self.rows, "bytes": self.num_bytes, "rows_per_group": self.rows_per_group}


# --- names -----------------------------------------------------------------------------------------------------------


def stem(uri: str) -> str:
    """Return a file name without folder and suffix."""
    return uri.rsplit("/", 1)[-1].removesuffix(SUFFIX)


def list_stems(folder: str) -> list[str]:
    """Return the sorted names of the parquet files in a folder, without hidden files, which are unfinished writes.

    Raises:
        OSError: the folder exists but cannot be listed. (fsspec's `find` would return an empty list.)
    """
    filesystem, path = storage.fsspec_filesystem(folder)
    try:
        names = filesystem.ls(path, detail=False)
    except FileNotFoundError:
        return []
    return sorted(stem(name) for name in names if name.endswith(SUFFIX) and not stem(name).startswith("."))


# --- parquet footers -------------------------------------------------------------------------------------------------


class ForeignFileError(ValueError):
    """A file that none of our writers completed: truncated, damaged, or written by other software."""


@dataclass(frozen=True)
class Footer:
    """Footer of a parquet file, read without its rows."""

    metadata: pq.FileMetaData
    schema: pa.Schema
    """Columns of the file, without key-value metadata."""
    num_bytes: int

    def metadata_value(self, key: bytes) -> bytes:
        """Return the key-value metadata entry that our writer stored under `key`.

        Raises:
            ForeignFileError: there is none, so another writer made the file.
        """
        entries: dict[bytes, bytes] = self.metadata.metadata or {}
        try:
            return entries[key]
        except KeyError:
            raise ForeignFileError(f"it has no {key.decode()!r} in its footer") from None


def read_footer(uri: str) -> Footer:
    """Read the footer of a parquet file, in two requests.

    Raises:
        ForeignFileError: the file is not a complete parquet file.
        OSError: the storage failed, which says nothing about the file; `FileNotFoundError` if it does not exist.
    """
    filesystem, path = storage.fsspec_filesystem(uri)
    num_bytes = int(filesystem.info(path)["size"])
    start = max(0, num_bytes - _TAIL_BYTES)
    tail = bytes(filesystem.cat_file(path, start=start, end=num_bytes)) if num_bytes else b""
    if len(tail) < 12 or tail[-4:] != _MAGIC:
        raise ForeignFileError("it does not end as a parquet file does")
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length + len(_MAGIC) > num_bytes:
        raise ForeignFileError("it is shorter than its footer says")
    if length > len(tail):
        tail = bytes(filesystem.cat_file(path, start=num_bytes - length, end=num_bytes))
    try:
        file = pq.ParquetFile(pa.BufferReader(_MAGIC + tail[-length:]))
        return Footer(file.metadata, file.schema_arrow.remove_metadata(), num_bytes)
    except (pa.ArrowException, OSError) as error:  # read from memory, so the bytes themselves are invalid
        raise ForeignFileError(f"its footer is damaged ({str(error).splitlines()[0]})") from error


def read_records(names: Sequence[str], read: Callable[[str], _Record]) -> Iterator[_Record]:
    """Yield `read(name)` for each name, in order, with parallel requests; log and skip foreign and removed files."""
    gone: list[str] = []

    def attempt(name: str) -> _Record | None:
        try:
            return read(name)
        except ForeignFileError as error:
            log_ignored(name, error)
        except FileNotFoundError:
            gone.append(name)
        return None

    with ThreadPoolExecutor(_PARALLEL_REQUESTS) as pool:
        for start in range(0, len(names), _FILES_PER_STEP):
            found = pool.map(attempt, names[start : start + _FILES_PER_STEP])
            yield from (record for record in found if record is not None)
    if gone:
        logger.warning("%d of %d files were removed while they were read, e.g. %s", len(gone), len(names), gone[0])


def log_ignored(uri: str, error: ForeignFileError) -> None:
    """Log that a file is treated as missing, and why."""
    logger.warning("%s is ignored: %s", uri, error)
