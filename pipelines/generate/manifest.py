"""Manifest of a generation run: one row per request, and the names of the videos."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.generate.prompts import Request
from videogen import storage
from videogen.data.datasets.columns import Column

MANIFEST_NAME = "manifest.parquet"

MANIFEST_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("prompt", pa.string()),
        ("seed", pa.int64()),
        ("video", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("num_frames", pa.int32()),
        ("fps", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)
"""`status` is "ok" or "failed"; `video` is a URI, empty where it failed."""

MANIFEST_COLUMNS = {
    "id": Column("name of the video: from the prompts table, or a hash of what was asked for"),
    "prompt": Column("prompt"),
    "seed": Column("seed of all noise of the video"),
    "video": Column("URI of the mp4 file; empty where it failed"),
    "status": Column("`ok` or `failed`"),
    "error": Column("reason of the failure, or empty"),
    "num_frames": Column("length", "frames"),
    "fps": Column("rate", "frames/s"),
    "width": Column("width", "pixels"),
    "height": Column("height", "pixels"),
}

_MADE_BY = b"videogen.made_by"
"""Footer entry: hash of the model and of its settings, so that another model's videos are not taken for done."""
_REQUESTS = b"videogen.requests"
"""Footer entry: the digest of each row's request, in order; it also covers what has no column."""

Row = dict[str, Any]


def video_uri(output: str, name: str) -> str:
    """Return the URI of a video."""
    return storage.join(output, "videos", f"{name}.mp4")


def intermediates_uri(output: str, name: str) -> str:
    """Return the URI of a video's intermediate results."""
    return storage.join(output, "intermediates", f"{name}.safetensors")


def write_manifest(output: str, requests: Sequence[Request], rows: Mapping[str, Row], maker: str) -> str:
    """Write the finished rows in the order of the prompts; return the manifest's URI."""
    listed = [request for request in requests if request.id in rows]
    footer = {_MADE_BY: maker.encode(), _REQUESTS: json.dumps([request.digest for request in listed]).encode()}
    schema = MANIFEST_SCHEMA.with_metadata(footer)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([rows[request.id] for request in listed], schema=schema), sink)
    uri = storage.join(output, MANIFEST_NAME)
    storage.write_if_changed(uri, sink.getvalue().to_pybytes())
    return uri


def made_by(output: str) -> str | None:
    """Return the fingerprint of the model and settings that made the videos, or None if it is not recorded."""
    maker = (_read(output).schema.metadata or {}).get(_MADE_BY)
    return None if maker is None else maker.decode()


def read_manifest(output: str) -> list[Row]:
    """Return the rows of a run's manifest."""
    rows: list[Row] = _read(output).to_pylist()
    return rows


def finished_rows(output: str, requests: Iterable[Request], maker: str, with_intermediates: bool) -> dict[str, Row]:
    """Return the reusable rows of an earlier run by id: same model, same request, files present."""
    if not storage.exists(storage.join(output, MANIFEST_NAME)):
        return {}
    table = _read(output)
    footer = table.schema.metadata or {}
    if footer.get(_MADE_BY) != maker.encode():
        return {}
    digests = json.loads(footer[_REQUESTS])
    listed = {row["id"]: (row, digest) for row, digest in zip(table.to_pylist(), digests, strict=True)}
    # One listing instead of one request per file.
    present = set(storage.list_files(storage.join(output, "videos"), [".mp4"]))
    if with_intermediates:
        present |= set(storage.list_files(storage.join(output, "intermediates"), [".safetensors"]))
    finished = {}
    for request in requests:
        row, digest = listed.get(request.id, ({}, ""))
        files = {video_uri(output, request.id)} | (
            {intermediates_uri(output, request.id)} if with_intermediates else set()
        )
        if row and row["status"] == "ok" and digest == request.digest and files <= present:
            finished[request.id] = row
    return finished


def _read(output: str) -> pa.Table:
    return pq.read_table(pa.BufferReader(storage.read_bytes(storage.join(output, MANIFEST_NAME))))
