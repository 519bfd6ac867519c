"""Export to WebDataset: tar shards of samples, read back losslessly by the `webdataset` package."""

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from videogen import storage
from videogen.data.interchange._export import ExportFolder, ExportOptions, json_value, kept
from videogen.data.interchange._source_videos import KEY_NAME, measure_videos, source_videos, video_key
from videogen.data.tables import PublishedTable

INDEX_NAME = "index.json"

_VIDEOS = "videos/"
"""Folder of the shards of the source videos."""
_BLOCK = 512
"""Block size of tar files in bytes."""

_Sample = list[tuple[str, bytes]]
"""File names and contents."""


def export_webdataset(
    table: PublishedTable, output: str, options: ExportOptions, advance: Callable[[int], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Write a table as tar shards 00000.tar, 00001.tar, ... and index.json, which lists them.

    The key of a sample is its clip_id. `KEY.json` contains every column that is not an array, `KEY.txt` the caption,
    `KEY.thumbnail.jpg` the thumbnail, and `KEY.NAME.npy` (or one `KEY.safetensors`) the arrays. The output is
    deterministic.

    Source videos form a set of their own, `videos/00000.tar`, ... with an index.json: `KEY.mp4` (or the original
    suffix), `KEY.txt` and `KEY.json` for each video, where KEY is the `video_key` in the json of its clips.

    Args:
        table: the table to export.
        output: folder, empty or with an earlier export.
        options: row selection and format.
        advance: called with the number of clips of each completed shard.

    Returns:
        For each shard `url` (its name), `nsamples` and `filesize`, as in index.json.

    Raises:
        UserError: no row is selected, a source video changed since it was ingested, or `output` contains other files.
    """
    clips = _clip_samples(table, options)
    first = next(clips, None)
    if first is None:
        raise options.nothing_chosen(table)
    if options.with_videos:
        measure_videos(table, options)
    folder = ExportFolder(storage.absolute(output), [INDEX_NAME, f"{_VIDEOS}{INDEX_NAME}"])
    shards: list[dict[str, Any]] = []
    if options.with_videos:
        videos = _video_samples(table, options)
        shards += _write_shards(folder, _VIDEOS, "videos", next(videos), videos, options, lambda _: None)
    return shards + _write_shards(folder, "", table.kind.name, first, clips, options, advance)


def _write_shards(
    folder: ExportFolder,
    prefix: str,
    name: str,
    first: _Sample | None,
    samples: Iterator[_Sample],
    options: ExportOptions,
    advance: Callable[[int], None],
) -> list[dict[str, Any]]:
    """Write one set of samples and its index; return its shards with paths relative to the folder."""
    shards: list[dict[str, Any]] = []
    while first is not None:
        url = f"{len(shards):05}.tar"
        with storage.atomic_stream(folder.add(f"{prefix}{url}")) as file:
            num_samples, size, first = _write_shard(file, first, samples, options.shard_bytes)
        shards.append({"url": url, "nsamples": num_samples, "filesize": size})
        advance(num_samples)
    index = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": name, "shardlist": shards}
    storage.write_json(folder.add(f"{prefix}{INDEX_NAME}"), index)
    return [{**shard, "url": f"{prefix}{shard['url']}"} for shard in shards]


def _write_shard(
    file: Any, first: _Sample, samples: Iterator[_Sample], target_bytes: int
) -> tuple[int, int, _Sample | None]:
    """Fill one shard up to its target size; return the number of samples, its size, and the next sample."""
    num_samples, sample = 0, first
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
        while True:
            for name, content in sample:
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(content), 0o444
                tar.addfile(member, io.BytesIO(content))
            num_samples += 1
            following = next(samples, None)
            if following is None or tar.offset + _tar_bytes(following) > target_bytes:
                break
            sample = following
    return num_samples, file.tell(), following


def _tar_bytes(sample: _Sample) -> int:
    return sum(_BLOCK + -(-len(content) // _BLOCK) * _BLOCK for _, content in sample)


def _clip_samples(table: PublishedTable, options: ExportOptions) -> Iterator[_Sample]:
    for row in kept(table, options):
        key = row["clip_id"]
        arrays = {name: value for name, value in row.items() if isinstance(value, np.ndarray)}
        blobs = {name: value for name, value in row.items() if isinstance(value, bytes)}
        rest = {name: json_value(value) for name, value in row.items() if name not in arrays | blobs}
        if options.with_videos:
            rest[KEY_NAME] = video_key(row["source"])
        files = _text_files(key, rest)
        files += [(f"{key}.{name}.{_extension(value)}", value) for name, value in sorted(blobs.items())]
        yield files + _array_files(key, arrays, options.arrays)


def _video_samples(table: PublishedTable, options: ExportOptions) -> Iterator[_Sample]:
    for video in source_videos(table, options):
        files = _text_files(video.key, {"source": video.source, "caption": video.caption})
        yield [*files, (video.file_name(), video.read())]


def _text_files(key: str, values: Mapping[str, Any]) -> _Sample:
    files = [(f"{key}.json", json.dumps(values, sort_keys=True).encode())]
    if values.get("caption"):
        files.append((f"{key}.txt", values["caption"].encode()))
    return files


def _array_files(key: str, arrays: dict[str, np.ndarray], form: str) -> _Sample:
    if form == "safetensors":
        from safetensors.numpy import save

        return [(f"{key}.safetensors", save(dict(sorted(arrays.items()))))] if arrays else []
    files = []
    for name, array in sorted(arrays.items()):
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        files.append((f"{key}.{name}.npy", buffer.getvalue()))
    return files


def _extension(content: bytes) -> str:
    return "jpg" if content.startswith(b"\xff\xd8\xff") else "bin"
