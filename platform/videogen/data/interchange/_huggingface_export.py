"""Export to a Hugging Face dataset: parquet files that `datasets.load_dataset(FOLDER)` opens."""

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from videogen import storage
from videogen.data.interchange._export import ExportFolder, ExportOptions, kept
from videogen.data.interchange._huggingface_card import README_NAME, Columns, WrittenSet, feature_of, write_card
from videogen.data.interchange._source_videos import KEY_NAME, measure_videos, source_videos, video_key
from videogen.data.sources import find_versions
from videogen.data.tables import PublishedTable

if TYPE_CHECKING:
    import pyarrow as pa

_GROUP_BYTES, _GROUP_ROWS = 64 << 20, 1000
"""Largest size of a row group; it holds at least one row."""
_MAX_CELL_BYTES = (1 << 31) - 1
"""Limit of the binary type in which the `datasets` library stores videos."""


def export_huggingface(
    table: PublishedTable, output: str, options: ExportOptions, advance: Callable[[int], None] = lambda _: None
) -> list[str]:
    """Write a table as parquet files and a README.md that `datasets.load_dataset` understands.

    An array is stored as a flat list of its numbers in `NAME` and its shape in `NAME_shape`; `thumbnail` is an image.
    `video` is the URI of the source as text, and `video_version` the version of a local file. With videos there is
    `video_key` instead, and a second config, `videos`, has `video_key` and the `video` itself, once each.

    Args:
        table: the table to export.
        output: folder, empty or with an earlier export.
        options: row selection and format.
        advance: called with the number of clips written.

    Returns:
        Names of the parquet files in `output`.

    Raises:
        UserError: no row is selected, a source video changed since it was ingested, or `output` contains other files.
    """
    num_rows = table.count(options.expression(table.index_schema.names))
    if not num_rows:
        raise options.nothing_chosen(table)
    all_rows, all_bytes = (sum(values) for values in zip(*((s.rows, s.num_bytes) for s in table.shards), strict=True))
    num_videos, video_bytes = measure_videos(table, options, _MAX_CELL_BYTES) if options.with_videos else (0, 0)
    folder = ExportFolder(storage.absolute(output), [README_NAME])
    columns = _clip_columns(table, options)
    rows = _clip_rows(table, options)
    sets = []
    if options.with_videos:
        videos = _video_rows(table, options)
        size = (num_videos, video_bytes, options.shard_bytes)
        sets.append(_write_set(folder, "videos", "videos", videos, _video_columns(), size, lambda _: None))
    size = (num_rows, num_rows * all_bytes // all_rows, options.shard_bytes)
    sets.insert(0, _write_set(folder, "default", "data", rows, columns, size, advance))
    storage.write_text(folder.add(README_NAME), write_card(table, sets))
    return [name for one in sets for name in one.files]


def _clip_columns(table: PublishedTable, options: ExportOptions) -> Columns:
    import pyarrow as pa

    fields = {field.name: field.type for schema in (table.index_schema, table.shard_schema) for field in schema}
    first = next(kept(table, options))
    columns: dict[str, tuple[pa.DataType, dict[str, Any]]] = {}
    for name, kind in fields.items():
        if name in ("shard", "row") or name in table.array_metadata_columns:
            continue
        if name in table.array_columns:
            array = first[name]
            numbers = pa.list_(pa.float16() if array is None else pa.from_numpy_dtype(array.dtype))
            columns[name] = (numbers, feature_of(numbers))
            columns[f"{name}_shape"] = (pa.list_(pa.int32()), feature_of(pa.list_(pa.int32())))
        elif name == "thumbnail":
            columns[name] = (_media(), {"_type": "Image"})
        else:
            columns[name] = (kind, feature_of(kind))
    # The URI of a video is text: as a Video feature, the library would open it with every row.
    added = (KEY_NAME,) if options.with_videos else ("video", "video_version")
    return columns | {name: (pa.string(), feature_of(pa.string())) for name in added}


def _video_columns() -> Columns:
    import pyarrow as pa

    texts = {name: (pa.string(), feature_of(pa.string())) for name in (KEY_NAME, "source", "caption")}
    return {**texts, "video": (_media(), {"_type": "Video"})}


def _media() -> "pa.DataType":
    import pyarrow as pa

    return pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def _clip_rows(table: PublishedTable, options: ExportOptions) -> Iterator[dict[str, Any]]:
    for row in kept(table, options):
        values: dict[str, Any] = {}
        for name, value in row.items():
            if isinstance(value, np.ndarray):
                values[name], values[f"{name}_shape"] = value.reshape(-1), list(value.shape)
            elif name == "thumbnail" and value is not None:
                values[name] = {"bytes": value, "path": f"{row['clip_id']}.jpg"}
            else:
                values[name] = value
        if options.with_videos:
            values[KEY_NAME] = video_key(row["source"])
        else:
            values["video"], values["video_version"] = row["source"], _local_version(row["source"])
        yield values


def _local_version(source: str) -> str | None:
    """Return the version of a local file, which an import compares; None for S3 and missing files."""
    return None if storage.is_remote(source) else find_versions([source])[0][0] or None


def _video_rows(table: PublishedTable, options: ExportOptions) -> Iterator[dict[str, Any]]:
    for video in source_videos(table, options):
        media = {"bytes": video.read(), "path": video.file_name()}
        yield {KEY_NAME: video.key, "source": video.source, "caption": video.caption, "video": media}


def _write_set(
    folder: ExportFolder,
    name: str,
    subfolder: str,
    rows: Iterator[dict[str, Any]],
    columns: Columns,
    size: tuple[int, int, int],
    advance: Callable[[int], None],
) -> WrittenSet:
    """Write rows to files of about equal size; `size` is their number, their bytes and the target size of a file."""
    num_rows, num_bytes, file_bytes = size
    rows_per_file = -(-num_rows // max(1, -(-num_bytes // file_bytes)))
    num_files = -(-num_rows // rows_per_file)
    files, written = [], 0
    for number in range(num_files):
        files.append(f"{subfolder}/train-{number:05}-of-{num_files:05}.parquet")
        written += _write_file(folder.add(files[-1]), rows, rows_per_file, columns, advance)
    return WrittenSet(name, subfolder, columns, num_rows, written, tuple(files))


def _write_file(
    uri: str,
    rows: Iterator[dict[str, Any]],
    num_rows: int,
    columns: Columns,
    advance: Callable[[int], None],
) -> int:
    """Write the next rows to one file and return its size in bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = {name: feature for name, (_, feature) in columns.items()}
    note = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    schema = pa.schema([(name, kind) for name, (kind, _) in columns.items()], metadata=note)
    written = 0
    with storage.atomic_stream(uri) as file:
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            while group := _next_group(rows, num_rows - written):
                columns_of_group = [pa.array([row.get(field.name) for row in group], field.type) for field in schema]
                writer.write_table(pa.table(columns_of_group, schema=schema))
                written += len(group)
                advance(len(group))
        return file.tell()


def _next_group(rows: Iterator[dict[str, Any]], at_most: int) -> list[dict[str, Any]]:
    group: list[dict[str, Any]] = []
    size = 0
    while len(group) < min(at_most, _GROUP_ROWS) and size < _GROUP_BYTES and (row := next(rows, None)) is not None:
        group.append(row)
        size += sum(_num_bytes(value) for value in row.values())
    return group


def _num_bytes(value: Any) -> int:
    if isinstance(value, dict):
        return len(value["bytes"] or b"")
    return value.nbytes if isinstance(value, np.ndarray) else len(value) if isinstance(value, bytes) else 16
