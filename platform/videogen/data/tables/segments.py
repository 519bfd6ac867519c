"""Segments: what the driver has noted of parts so far, thousands of footers in one file.

A segment repeats what footers say, so losing one costs time, not data, as long as the parts are there; parts are
removed only after the segments that tell of them have been read back. Segments are sets: the same outcome in two of
them counts once.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from videogen import storage
from videogen.data.tables.files import COMMITS, SUFFIX, ForeignFileError, list_stems, read_footer
from videogen.data.tables.records import STATUSES, PartRecord

SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("status", pa.uint8()),  # place in STATUSES, so that the least is the best
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
        ("facts", pa.string()),  # JSON, of the part
    ]
)
_KEY = b"videogen.segment"
_VERSION = "1"
_ROWS_PER_BATCH = 65_536


def rows_of(records: Iterable[PartRecord]) -> pa.Table:
    """Return one row an outcome, with the columns of `SCHEMA`."""
    rows = []
    for record in records:
        first_row = 0
        of_part = {
            "part": record.name,
            "part_rows": record.rows,
            "part_bytes": record.num_bytes,
            "facts": json.dumps(dict(record.facts), sort_keys=True),
        }
        for item in record.outcomes:
            values = vars(item) | {"status": STATUSES.index(item.status), "num_rows": item.rows}
            rows.append({**of_part, **values, "first_row": first_row})
            first_row += item.rows
    return pa.Table.from_pylist(rows, SCHEMA)


def write_segment(table_uri: str, identity: str, rows: pa.Table) -> str:
    """Write rows as a segment of this identity and return its name, which is a hash of its content."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, SCHEMA, compression="zstd") as writer:
        writer.write_table(rows.select(SCHEMA.names).cast(SCHEMA))
        writer.add_key_value_metadata({_KEY: _VERSION})
    data = sink.getvalue().to_pybytes()
    name = f"{identity}-{hashlib.sha256(data).hexdigest()[:20]}"
    storage.write_bytes(segment_uri(table_uri, name), data)
    return name


def segment_uri(table_uri: str, name: str) -> str:
    """Return where the segment of this name is."""
    return storage.join(table_uri, COMMITS, name + SUFFIX)


def list_segments(table_uri: str, identity: str) -> list[str]:
    """Return the names of the segments of this identity."""
    names = list_stems(storage.join(table_uri, COMMITS))
    return [name for name in names if name.rpartition("-")[0] == identity]


def require_segment(table_uri: str, name: str) -> int:
    """Return the rows of a segment after a look at the file itself.

    Raises:
        ForeignFileError: half written, or not a segment of this version.
        OSError: the storage failed; `FileNotFoundError` if it is gone.
    """
    footer = read_footer(segment_uri(table_uri, name))
    if footer.note(_KEY) != _VERSION.encode() or footer.schema != SCHEMA:
        raise ForeignFileError("it is of another version")
    return int(footer.metadata.num_rows)


def read_segment(table_uri: str, name: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a segment.

    Raises:
        ForeignFileError: before the first row, as `require_segment` does, or where the file is damaged.
    """
    require_segment(table_uri, name)
    filesystem, path = storage.arrow_filesystem(segment_uri(table_uri, name))
    with filesystem.open_input_file(path) as file:
        try:
            yield from pq.ParquetFile(file).iter_batches(_ROWS_PER_BATCH)
        except pa.ArrowException as error:
            raise ForeignFileError(f"its rows are damaged ({str(error).splitlines()[0]})") from error
