"""The journal of a table: what workers have committed, read when a run starts and written down while it goes on.

A part's footer is the record of its unit; a segment only saves the next run from reading many footers. So the order is
always: parts, then segments that tell of them, and only then may parts go.
"""

import time
from collections.abc import Callable, Collection, Iterable

from videogen import storage
from videogen.data.tables import segments
from videogen.data.tables.files import (
    PARTS,
    SHARDS,
    SUFFIX,
    ForeignFileError,
    ignore,
    list_stems,
    read_records,
    remove_files,
)
from videogen.data.tables.outcome_log import OutcomeLog
from videogen.data.tables.packing import read_shard_record
from videogen.data.tables.parts import part_uri, read_part_record
from videogen.data.tables.records import PartRecord
from videogen.data.tables.scratch import Scratch

ITEMS_PER_SEGMENT = 50_000
SECONDS_PER_SEGMENT = 60.0
_SEGMENTS_AT_MOST = 32
"""More are merged when the journal is opened and when parts are removed."""
_ROWS_PER_SEGMENT = 250_000


class Journal:
    """Outcomes of a table's items under one identity, as files in the table and as a log in a local database.

    Args:
        table_uri: folder of the table.
        identity: records of another do not count.
        published: names of the shards that readers see now.
        require_lease: raises unless this run may still write; asked right before anything is removed.
        scratch: the local database.

    Files that are not whole, or not ours, are named in the log and otherwise treated as if they were not there.

    Raises:
        OSError: the storage does not answer; nothing is concluded from that.
    """

    def __init__(
        self,
        table_uri: str,
        identity: str,
        published: Collection[str],
        require_lease: Callable[[], None],
        scratch: Scratch,
    ) -> None:
        self.log = OutcomeLog(scratch)
        self._uri = table_uri
        self._identity = identity
        self._require_lease = require_lease
        self._buffer: list[PartRecord] = []
        self._num_buffered = 0
        self._flushed = time.monotonic()
        self._segments: dict[str, int] = {}
        self._read_segments()
        self._read_shards(published)
        self._read_parts()
        self._merge_segments()

    def note(self, records: Iterable[PartRecord]) -> None:
        """Take in what workers have committed; written down every so many items or seconds, by `flush` and `close`.

        Noting twice, or what was read when the ledger was opened, does no harm.
        """
        for record in records:
            if record.identity != self._identity:
                raise ValueError(f"part {record.name} is of identity {record.identity}, the ledger of {self._identity}")
            self._buffer.append(record)
            self._num_buffered += len(record.outcomes)
        late = time.monotonic() - self._flushed > SECONDS_PER_SEGMENT
        if late or self._num_buffered >= ITEMS_PER_SEGMENT:
            self.flush()

    def flush(self) -> None:
        """Write down what was noted since the last time, as one segment."""
        self._flushed = time.monotonic()
        if self._buffer:
            rows = segments.rows_of(self._buffer)
            self._segments[segments.write_segment(self._uri, self._identity, rows)] = rows.num_rows
            self.log.add_parts(rows)
            self._buffer, self._num_buffered = [], 0

    def settle(self) -> None:
        """Write down what was noted, and forget outcomes that do not count."""
        self.flush()
        self.log.settle()

    def remove_parts(self) -> None:
        """Remove the parts that nobody needs any more, after a look at the segments that tell of them."""
        self._merge_segments()
        removed = self.log.parts_to_remove()
        if removed:
            self._require_segments()
            self._require_lease()
            remove_files([part_uri(self._uri, part) for part in removed])
            self.log.forget_parts(removed)

    def _read_segments(self) -> None:
        for name in segments.list_segments(self._uri, self._identity):
            try:
                num_rows = 0
                for batch in segments.read_segment(self._uri, name):
                    self.log.add_outcomes(batch)
                    num_rows += batch.num_rows
                self._segments[name] = num_rows
            except ForeignFileError as error:
                ignore(segments.segment_uri(self._uri, name), error)

    def _read_shards(self, published: Collection[str]) -> None:
        names = [f"{SHARDS}/{name}{SUFFIX}" for name in list_stems(storage.join(self._uri, SHARDS))]
        records = read_records(names, lambda name: read_shard_record(self._uri, name))
        self.log.add_shards((record for record in records if record.identity == self._identity), published)

    def _read_parts(self) -> None:
        untold = self.log.add_listing(list_stems(storage.join(self._uri, PARTS)))
        for record in read_records([part_uri(self._uri, name) for name in untold], read_part_record):
            if record.identity == self._identity:
                self.note([record])

    def _require_segments(self) -> None:
        for name, num_rows in self._segments.items():
            if segments.require_segment(self._uri, name) != num_rows:
                raise RuntimeError(
                    f"segment {name} of {self._uri!r} does not hold what was written, so no part is removed: run the "
                    "same job again"
                )

    def _merge_segments(self) -> None:
        """Write what many segments tell in few; the old ones go when the new ones are there."""
        self.settle()
        if len(self._segments) <= _SEGMENTS_AT_MOST:
            return
        old, self._segments = self._segments, {}
        total = self.log.segment_rows()
        for start in range(0, total, _ROWS_PER_SEGMENT):
            rows = self.log.segment(start, start + _ROWS_PER_SEGMENT)
            self._segments[segments.write_segment(self._uri, self._identity, rows)] = rows.num_rows
        self._require_segments()
        self._require_lease()
        remove_files([segments.segment_uri(self._uri, name) for name in old if name not in self._segments])
