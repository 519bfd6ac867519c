"""Commit log: which parts workers have committed and with which outcomes, in the files of the folder `commits/`.

The footer of a part is the primary record of its batch. A commit file repeats thousands of footers, which saves the
next run from reading them (as a checkpoint does in Delta Lake). The order of writes is therefore fixed: parts, then the
commit file that lists them, and only then may parts be removed. Commit files are sets: an outcome that occurs in two of
them counts once.
"""

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from videogen import storage
from videogen.data.tables.data_files import part_uri, read_part_record, read_shard_record
from videogen.data.tables.files import (
    COMMITS,
    PARTS,
    SHARDS,
    STATUSES,
    SUFFIX,
    ForeignFileError,
    PartRecord,
    list_stems,
    log_ignored,
    read_footer,
    read_records,
)
from videogen.data.tables.outcomes import OutcomeDatabase
from videogen.data.tables.spill_database import SpillDatabase
from videogen.hashing import short_hash

ITEMS_PER_COMMIT_FILE = 50_000
SECONDS_PER_COMMIT_FILE = 60.0
MAX_COMMIT_FILES = 32
"""More files than this are merged, when the log is opened and when parts are removed."""
ROWS_PER_MERGED_FILE = 250_000

OUTCOMES_SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("status", pa.uint8()),  # index into STATUSES, so the lowest value is the best
        ("attempts", pa.int32()),
        ("part", pa.string()),
        ("first_row", pa.int32()),  # in the part
        ("num_rows", pa.int32()),
        ("uri", pa.string()),
        ("stage", pa.string()),
        ("error", pa.string()),
        ("log_tail", pa.string()),
        ("part_rows", pa.int32()),
        ("part_bytes", pa.int64()),
        ("facts", pa.string()),  # metrics of the part as JSON; existing tables use this name
    ]
)
"""Columns of a commit file: one row per outcome."""
_VERSION_KEY = b"videogen.segment"
"""Footer entry of a commit file; existing tables use this name."""
_VERSION = "1"
_ROWS_PER_BATCH = 65_536


# --- commit files ----------------------------------------------------------------------------------------------------


def outcome_rows(records: Iterable[PartRecord]) -> pa.Table:
    """Return one row per outcome, with the columns of `OUTCOMES_SCHEMA`."""
    rows = []
    for record in records:
        first_row = 0
        of_part = {
            "part": record.name,
            "part_rows": record.rows,
            "part_bytes": record.num_bytes,
            "facts": json.dumps(dict(record.metrics), sort_keys=True),
        }
        for item in record.outcomes:
            values = vars(item) | {"status": STATUSES.index(item.status), "num_rows": item.rows}
            rows.append({**of_part, **values, "first_row": first_row})
            first_row += item.rows
    return pa.Table.from_pylist(rows, OUTCOMES_SCHEMA)


def write_commit_file(table_uri: str, identity: str, rows: pa.Table) -> str:
    """Write outcomes as a commit file of this identity; return its name, which is a hash of its content."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, OUTCOMES_SCHEMA, compression="zstd") as writer:
        writer.write_table(rows.select(OUTCOMES_SCHEMA.names).cast(OUTCOMES_SCHEMA))
        writer.add_key_value_metadata({_VERSION_KEY: _VERSION})
    data = sink.getvalue().to_pybytes()
    name = f"{identity}-{short_hash(data)}"
    storage.write_bytes(commit_file_uri(table_uri, name), data)
    return name


def commit_file_uri(table_uri: str, name: str) -> str:
    """Return the URI of the commit file with this name."""
    return storage.join(table_uri, COMMITS, name + SUFFIX)


def list_commit_files(table_uri: str, identity: str) -> list[str]:
    """Return the names of the commit files of this identity."""
    names = list_stems(storage.join(table_uri, COMMITS))
    return [name for name in names if name.rpartition("-")[0] == identity]


def count_commit_file(table_uri: str, name: str) -> int:
    """Return the number of rows of a commit file, from its footer.

    Raises:
        ForeignFileError: truncated, or not a commit file of this version.
        OSError: the storage failed; `FileNotFoundError` if the file does not exist.
    """
    footer = read_footer(commit_file_uri(table_uri, name))
    if footer.metadata_value(_VERSION_KEY) != _VERSION.encode() or footer.schema != OUTCOMES_SCHEMA:
        raise ForeignFileError("it is of another version")
    return int(footer.metadata.num_rows)


def read_commit_file(table_uri: str, name: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a commit file.

    Raises:
        ForeignFileError: before the first row, as of `count_commit_file`; later if the file is damaged.
    """
    count_commit_file(table_uri, name)
    filesystem, path = storage.arrow_filesystem(commit_file_uri(table_uri, name))
    with filesystem.open_input_file(path) as file:
        try:
            yield from pq.ParquetFile(file).iter_batches(_ROWS_PER_BATCH)
        except pa.ArrowException as error:
            raise ForeignFileError(f"its rows are damaged ({str(error).splitlines()[0]})") from error


# --- log -------------------------------------------------------------------------------------------------------------


class CommitLog:
    """Outcomes of a table's items under one identity: stored in commit files, queried in a local database.

    Opening reads commit files, shards, and the footers of parts that no commit file lists. Truncated and foreign files
    are logged and otherwise treated as missing.

    Args:
        table_uri: folder of the table.
        identity: records of other identities are ignored.
        published: names of the shards in the current manifest.
        require_lease: raises unless this run may still write; called immediately before anything is removed.
        database: local database.

    Raises:
        OSError: the storage does not answer; nothing is concluded from that.
    """

    def __init__(
        self,
        table_uri: str,
        identity: str,
        published: Collection[str],
        require_lease: Callable[[], None],
        database: SpillDatabase,
    ) -> None:
        self.outcomes = OutcomeDatabase(database, OUTCOMES_SCHEMA)
        self._uri = table_uri
        self._identity = identity
        self._require_lease = require_lease
        self._buffer: list[PartRecord] = []
        self._num_buffered = 0
        self._flushed = time.monotonic()
        self._files: dict[str, int] = {}
        self._read_commit_files()
        self._read_shards(published)
        self._read_unlisted_parts()
        self._merge_files()

    def add(self, records: Iterable[PartRecord]) -> None:
        """Add committed parts; they are written to a commit file periodically and by `flush`.

        Adding a part twice has no effect.
        """
        for record in records:
            if record.identity != self._identity:
                raise ValueError(f"part {record.name} is of identity {record.identity}, the ledger of {self._identity}")
            self._buffer.append(record)
            self._num_buffered += len(record.outcomes)
        late = time.monotonic() - self._flushed > SECONDS_PER_COMMIT_FILE
        if late or self._num_buffered >= ITEMS_PER_COMMIT_FILE:
            self.flush()

    def flush(self) -> None:
        """Write the parts that were added since the last flush to a commit file."""
        self._flushed = time.monotonic()
        if self._buffer:
            rows = outcome_rows(self._buffer)
            self._files[write_commit_file(self._uri, self._identity, rows)] = rows.num_rows
            self.outcomes.add_parts(rows)
            self._buffer, self._num_buffered = [], 0

    def settle(self) -> None:
        """Flush, and keep only the outcome that counts of each item."""
        self.flush()
        self.outcomes.settle()

    def remove_parts(self) -> None:
        """Remove the parts that are not needed any more, after verifying the commit files that list them."""
        self._merge_files()
        removed = self.outcomes.parts_to_remove()
        if removed:
            self._verify_files()
            self._require_lease()
            storage.remove_files([part_uri(self._uri, part) for part in removed])
            self.outcomes.forget_parts(removed)

    def _read_commit_files(self) -> None:
        for name in list_commit_files(self._uri, self._identity):
            try:
                num_rows = 0
                for batch in read_commit_file(self._uri, name):
                    self.outcomes.add_outcomes(batch)
                    num_rows += batch.num_rows
                self._files[name] = num_rows
            except ForeignFileError as error:
                log_ignored(commit_file_uri(self._uri, name), error)

    def _read_shards(self, published: Collection[str]) -> None:
        names = [f"{SHARDS}/{name}{SUFFIX}" for name in list_stems(storage.join(self._uri, SHARDS))]
        records = read_records(names, lambda name: read_shard_record(self._uri, name))
        self.outcomes.add_shards((record for record in records if record.identity == self._identity), published)

    def _read_unlisted_parts(self) -> None:
        unlisted = self.outcomes.add_listing(list_stems(storage.join(self._uri, PARTS)))
        for record in read_records([part_uri(self._uri, name) for name in unlisted], read_part_record):
            if record.identity == self._identity:
                self.add([record])

    def _verify_files(self) -> None:
        for name, num_rows in self._files.items():
            if count_commit_file(self._uri, name) != num_rows:
                raise RuntimeError(
                    f"commit file {name} of {self._uri!r} does not hold what was written, so no part is removed: run "
                    "the same job again"
                )

    def _merge_files(self) -> None:
        """Rewrite many commit files as few; the old ones are removed when the new ones are complete."""
        self.settle()
        if len(self._files) <= MAX_COMMIT_FILES:
            return
        old, self._files = self._files, {}
        total = self.outcomes.prepare_merge()
        for start in range(0, total, ROWS_PER_MERGED_FILE):
            rows = self.outcomes.merged_rows(start, start + ROWS_PER_MERGED_FILE)
            self._files[write_commit_file(self._uri, self._identity, rows)] = rows.num_rows
        self._verify_files()
        self._require_lease()
        storage.remove_files([commit_file_uri(self._uri, name) for name in old if name not in self._files])
