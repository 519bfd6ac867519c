"""Hugging Face datasets as parquet: a folder with data/train-00000-of-00002.parquet, ... and a README.md.

Import: a column of videos (bytes, a path, or a struct of both) and one of captions. Export: the rows of a table, which
`datasets.load_dataset(FOLDER)` opens without any code of ours.
"""

import json
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from videogen import storage
from videogen.cli import nearest
from videogen.data.finished import FinishedTable
from videogen.data.interchange.exporting import ExportOptions, begin_export, kept, source_bytes
from videogen.data.interchange.unpacking import (
    CAPTION_NAMES,
    MAX_VIDEO_BYTES,
    Found,
    ImportResult,
    safe_name,
    unpack_shards,
)
from videogen.data.listing import find_versions
from videogen.data.tables.files import atomic_stream
from videogen.data.video import SUFFIXES
from videogen.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

SHARD_SUFFIXES = (".parquet",)
README_NAME = "README.md"

_VIDEO_NAMES = ("video", "videos", "mp4", "file")
_VIDEOS_AT_ONCE = 4
"""Rows with videos in them that memory holds while they are unpacked."""
_GROUP_BYTES, _GROUP_ROWS = 64 << 20, 1000
"""What a row group has at most; one row is always taken."""
_DTYPES = {"float": "float32", "double": "float64", "halffloat": "float16"}
"""Arrow's names of types that the datasets library calls otherwise."""


# --- import ------------------------------------------------------------------------------------------------------


def import_huggingface(
    shards: Sequence[str],
    output: str,
    root: str,
    video: str | None = None,
    caption: str | None = None,
    max_video_bytes: int = MAX_VIDEO_BYTES,
    advance: Callable[[], None] = lambda: None,
) -> ImportResult:
    """Copy the videos of parquet shards into a folder that `open_source` reads; the same call again continues.

    Videos that are only named are not copied: the manifest then says where they are.

    Args:
        shards: URIs of parquet files.
        output: folder.
        root: folder of the data set, which paths in it are relative to.
        video: column of videos; None: the first of `video`, `videos`, `mp4`, `file`.
        caption: column of captions; None: the first of `CAPTION_NAMES`, if any.
        max_video_bytes: what a video may have.
        advance: called once a shard.

    Raises:
        UserError: no such columns, no video in any shard, or `output` cannot be written.
    """
    for shard in shards:
        _find_columns(shard, video, caption)

    def unpack(shard: str, folder: str) -> Iterator[Found]:
        columns = _find_columns(shard, video, caption)
        for row, (cell, text) in enumerate(_cells(shard, *columns)):
            name, content = (cell.get("path"), cell.get("bytes")) if isinstance(cell, dict) else _told(cell)
            line = " ".join(text.split()) if isinstance(text, str) else ""
            if content is None:
                yield _named(name, row, root)._replace(caption=line or None)
            elif len(content) > max_video_bytes:
                yield Found(f"row {row}", error=f"it has {len(content)} bytes, more than {max_video_bytes}")
            else:
                location = f"{folder}/{row:08}-{_file_name(name)}"
                storage.write_bytes(storage.join(storage.absolute(output), location), content)
                yield Found(f"row {row}", location, line or None)

    settings = {"root": root, "video": video, "caption": caption, "max": max_video_bytes}
    return unpack_shards(shards, output, unpack, settings, advance)


def _find_columns(shard: str, video: str | None, caption: str | None) -> tuple[str, str | None]:
    """Return the names of a shard's columns of videos and of captions."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    filesystem, path = storage.arrow_filesystem(shard)
    try:
        with filesystem.open_input_file(path) as file:
            schema = pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"Shard {shard!r} is no parquet file ({str(error).splitlines()[0]}): remove it.") from error
    for asked in filter(None, (video, caption)):
        if asked not in schema.names:
            raise UserError(
                f"Shard {shard!r} has no column {asked!r}, only {', '.join(schema.names)}: name one of these."
                f"{nearest(asked, schema.names)}"
            )
    found = video or next((name for name in _VIDEO_NAMES if name in schema.names), None)
    if found is None:
        raise UserError(f"Shard {shard!r} has no column 'video', only {', '.join(schema.names)}: say which has videos.")
    if not _holds_videos(schema.field(found).type):
        raise UserError(
            f"Shard {shard!r}: the column {found!r} holds {schema.field(found).type}, but a video is bytes, a path, or "
            f"a struct of both."
        )
    text = caption or next((name for name in CAPTION_NAMES if name in schema.names), None)
    return found, text


def _holds_videos(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return {"bytes", "path"} <= {field.name for field in kind}
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(test(kind) for test in tests)


def _cells(shard: str, video: str, caption: str | None) -> Iterator[tuple[Any, Any]]:
    import pyarrow.parquet as pq

    filesystem, path = storage.arrow_filesystem(shard)
    columns = [video] if caption is None else [video, caption]
    with filesystem.open_input_file(path) as file:
        for batch in pq.ParquetFile(file).iter_batches(_VIDEOS_AT_ONCE, columns=columns):
            captions = [None] * len(batch) if caption is None else batch[caption].to_pylist()
            yield from zip(batch[video].to_pylist(), captions, strict=True)


def _told(cell: Any) -> tuple[str | None, bytes | None]:
    return (None, cell) if isinstance(cell, bytes) else (cell, None)


def _file_name(name: str | None) -> str:
    """Return a safe file name that ends as videos do; what is inside shows when it is read."""
    base = safe_name((name or "").rpartition("/")[2] or "video.mp4")
    return base if base.lower().endswith(SUFFIXES) else f"{base}.mp4"


def _named(name: str | None, row: int, root: str) -> Found:
    """Return a video that is only named; a data set may point into its own folder and to S3, not at any file."""
    member = f"row {row}"
    if not name:
        return Found(member, error="it has neither bytes nor a path")
    if storage.is_remote(name):
        return Found(member, name)
    inside = posixpath.normpath(name)
    if "://" in name or inside.startswith(("/", "../")) or inside == "..":
        return Found(member, error=f"its path {name!r} is not in the folder of the data set")
    return Found(member, storage.join(storage.absolute(root), inside))


# --- export ------------------------------------------------------------------------------------------------------


def export_huggingface(
    table: FinishedTable, output: str, options: ExportOptions, advance: Callable[[int], None] = lambda _: None
) -> list[str]:
    """Write a table as parquet files and a README.md that `datasets.load_dataset` understands.

    An array is a flat list of its numbers in `NAME`, its shape in `NAME_shape`; `thumbnail` is an image; `video` is
    the URI of the source, or a video with its bytes inside.

    Args:
        table: what to export.
        output: folder, empty or with an earlier export.
        options: which rows, and how.
        advance: called with the number of rows that were written.

    Returns:
        Names of the files in `output`.

    Raises:
        UserError: no row is chosen, or `output` holds something else.
    """
    output = storage.absolute(output)
    num_rows, num_bytes = _measure(table, options)
    if not num_rows:
        raise options.nothing_chosen(table)
    begin_export(output, ".parquet", [README_NAME])
    rows_per_file = -(-num_rows // max(1, -(-num_bytes // options.shard_bytes)))
    num_files = -(-num_rows // rows_per_file)
    columns = _export_columns(table, options)
    rows = _export_rows(table, options, columns)
    names, size = [], 0
    for number in range(num_files):
        name = f"data/train-{number:05}-of-{num_files:05}.parquet"
        size += _write_file(storage.join(output, name), rows, rows_per_file, columns, advance)
        names.append(name)
    storage.write_text(storage.join(output, README_NAME), _card(table, columns, num_rows, size))
    return names


def _measure(table: FinishedTable, options: ExportOptions) -> tuple[int, int]:
    """Return the number of rows that are exported and, roughly, their bytes."""
    where = options.expression(table.index_schema.names)
    num_rows, video_bytes = 0, 0
    for batch in table.index(["source"] if options.with_videos else ["shard"], where):
        num_rows += len(batch)
        if options.with_videos:
            video_bytes += sum(size or 0 for _, size in find_versions(batch["source"].to_pylist(), "Sources"))
    all_rows = sum(shard.rows for shard in table.shards)
    return num_rows, video_bytes + num_rows * sum(shard.num_bytes for shard in table.shards) // max(1, all_rows)


def _export_columns(table: FinishedTable, options: ExportOptions) -> dict[str, tuple["pa.DataType", dict[str, Any]]]:
    """Return the type of each column in parquet, and what the datasets library calls it."""
    import pyarrow as pa

    media = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = {field.name: field.type for schema in (table.index_schema, table.shard_schema) for field in schema}
    first = next(kept(table, options))
    columns: dict[str, tuple[pa.DataType, dict[str, Any]]] = {}
    for name, kind in fields.items():
        if name in ("shard", "row") or name in table.array_notes:
            continue
        if name in table.array_columns:
            array = first[name]
            numbers = pa.list_(pa.float16() if array is None else pa.from_numpy_dtype(array.dtype))
            columns[name] = (numbers, _feature(numbers))
            columns[f"{name}_shape"] = (pa.list_(pa.int32()), _feature(pa.list_(pa.int32())))
        elif name == "thumbnail":
            columns[name] = (media, {"_type": "Image"})
        else:
            columns[name] = (kind, _feature(kind))
    if "source" in columns:
        # Only named, a video is text: the library would try to open it with every row.
        columns["video"] = (media, {"_type": "Video"}) if options.with_videos else (pa.string(), _feature(pa.string()))
    return columns


def _feature(kind: "pa.DataType") -> dict[str, Any]:
    import pyarrow as pa

    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    return {"dtype": _DTYPES.get(str(kind), str(kind)), "_type": "Value"}


def _export_rows(table: FinishedTable, options: ExportOptions, columns: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for row in kept(table, options):
        values: dict[str, Any] = {}
        for name, value in row.items():
            if isinstance(value, np.ndarray):
                values[name], values[f"{name}_shape"] = value.reshape(-1), list(value.shape)
            elif name == "thumbnail" and value is not None:
                values[name] = {"bytes": value, "path": f"{row['clip_id']}.jpg"}
            else:
                values[name] = value
        if "video" in columns:
            values["video"] = row["source"]
        if options.with_videos:
            values["video"] = {"bytes": source_bytes(row["source"]), "path": row["source"].rpartition("/")[2]}
        yield values


def _write_file(
    uri: str,
    rows: Iterator[dict[str, Any]],
    num_rows: int,
    columns: Mapping[str, tuple["pa.DataType", dict[str, Any]]],
    advance: Callable[[int], None],
) -> int:
    """Write the next rows as one file; return its bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = {name: feature for name, (_, feature) in columns.items()}
    note = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    schema = pa.schema([(name, kind) for name, (kind, _) in columns.items()], metadata=note)
    written = 0
    with atomic_stream(uri) as file:
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


def _card(table: FinishedTable, columns: Mapping[str, tuple[Any, dict[str, Any]]], num_rows: int, size: int) -> str:
    """Return the README.md: what the library reads on top, what people read below."""
    import yaml

    info = {
        "features": [{"name": name, **_card_feature(feature)} for name, (_, feature) in columns.items()],
        "splits": [{"name": "train", "num_bytes": size, "num_examples": num_rows}],
        "download_size": size,
        "dataset_size": size,
    }
    head = {
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}],
        "dataset_info": info,
    }
    arrays = ", ".join(f"`{name}`" for name in table.array_columns)
    shape = f" Arrays ({arrays}) are flat; `NAME_shape` has their shape." if arrays else ""
    return (
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n# {table.kind.capitalize()}\n\n{num_rows} rows of a table "
        f"of {table.kind}, exported by VideoGen Platform.{shape}\n\n```python\nimport datasets\n\n"
        f'rows = datasets.load_dataset("FOLDER", split="train")\n```\n'
    )


def _card_feature(feature: Mapping[str, Any]) -> dict[str, Any]:
    """Return a feature as a card spells it."""
    if feature["_type"] == "Value":
        return {"dtype": feature["dtype"]}
    if feature["_type"] == "List":
        inner = _card_feature(feature["feature"])
        return {"list": inner.get("dtype", inner)}
    return {"dtype": feature["_type"].lower()}
