"""WebDataset: tar shards of samples, whose files share a name up to the first dot.

Import: videos with a caption in `.txt` or in a `.json` beside them. Export: the rows of a table, arrays as npy or
safetensors and everything else as json, which the `webdataset` package reads back bit by bit.
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from videogen import storage
from videogen.data.finished import FinishedTable
from videogen.data.interchange.exporting import ExportOptions, begin_export, json_value, kept, source_bytes
from videogen.data.interchange.unpacking import (
    CAPTION_NAMES,
    MAX_TEXT_BYTES,
    MAX_VIDEO_BYTES,
    Found,
    ImportResult,
    TooLargeError,
    copy_video,
    safe_name,
    unpack_shards,
)
from videogen.data.tables.files import atomic_stream
from videogen.data.video import SUFFIXES

SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz")
INDEX_NAME = "index.json"

_BLOCK = 512
"""Bytes that a tar file is made of."""
_MAX_HEADER_BYTES = 1 << 20
"""Of the long names and other notes that may come before a member; tarfile reads them whole."""


# --- import ------------------------------------------------------------------------------------------------------


def import_webdataset(
    shards: Sequence[str],
    output: str,
    caption: str | None = None,
    max_video_bytes: int = MAX_VIDEO_BYTES,
    advance: Callable[[], None] = lambda: None,
) -> ImportResult:
    """Copy the videos of tar shards into a folder that `open_source` reads; the same call again continues.

    Nothing in a shard decides where it is written. Links, devices, unreadable captions and videos that are too large
    become rows of errors.parquet.

    Args:
        shards: URIs of tar files, also gzipped.
        output: folder.
        caption: name of the caption in a sample's json; None: its .txt, else the first of `CAPTION_NAMES`.
        max_video_bytes: what a video may have.
        advance: called once a shard.

    Raises:
        UserError: no video in any shard, or `output` cannot be written.
    """

    def unpack(shard: str, folder: str) -> Iterator[Found]:
        return _unpack(shard, storage.absolute(output), folder, caption, max_video_bytes)

    return unpack_shards(shards, output, unpack, {"caption": caption, "max": max_video_bytes}, advance)


def _unpack(shard: str, output: str, folder: str, caption: str | None, max_video_bytes: int) -> Iterator[Found]:
    """Yield what is in a shard, sample by sample, and write its videos; the tar is read once, front to back."""
    filesystem, path = storage.fsspec_filesystem(shard)
    sample = _Sample("", caption)
    taken: set[str] = set()
    try:
        with filesystem.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r|*", tarinfo=_Member) as tar:
            for member in tar:
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep them all
                key = split_name(member.name)[0]
                if key != sample.key:
                    yield from sample.found()
                    sample = _Sample(key, caption)
                if not member.isdir():
                    location = f"{folder}/{safe_name(member.name)}"
                    sample.add(tar, member, output, location if location not in taken else "", max_video_bytes)
                    taken.add(location)
    except (tarfile.TarError, OSError, EOFError) as error:
        # What came before the damage is good.
        sample.items.append(Found("", error=f"the shard cannot be read to its end ({' '.join(str(error).split())})"))
    yield from sample.found()


class _Member(tarfile.TarInfo):
    """A member whose header has a sensible size."""

    _NOTES = (*tarfile.GNU_TYPES[:2], tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        # tarfile names this method as the one to override where types of members are treated specially.
        if self.type in self._NOTES and self.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header has {self.size} bytes")
        return super()._proc_member(tar)  # type: ignore[misc]


class _Sample:
    """The files of one name."""

    def __init__(self, key: str, caption: str | None) -> None:
        self.key = key
        self.items: list[Found] = []
        self._caption_name = caption
        self._text: str | None = None
        self._json: dict[str, Any] = {}

    def add(self, tar: tarfile.TarFile, member: tarfile.TarInfo, output: str, location: str, max_bytes: int) -> None:
        """Take one member: write it if it is a video, read it if it may be the caption."""
        extension = f".{split_name(member.name)[1].lower()}"
        if not extension.endswith((*SUFFIXES, ".txt", ".json")):
            return
        content = tar.extractfile(member) if member.isreg() else None
        error = ""
        if content is None:
            error = "it is no regular file"
        elif extension.endswith(SUFFIXES):
            error = self._add_video(member, content, output, location, max_bytes)
        elif member.size > MAX_TEXT_BYTES:
            error = f"it has {member.size} bytes, more than the {MAX_TEXT_BYTES} of a text"
        else:
            error = self._add_text(content.read(), is_json=extension.endswith(".json"))
        if error:
            self.items.append(Found(member.name, error=error))

    def _add_video(self, member: tarfile.TarInfo, content: Any, output: str, location: str, max_bytes: int) -> str:
        if not location:
            return "another member of the shard has this name"
        if member.size > max_bytes:
            return f"it has {member.size} bytes, more than {max_bytes}"
        try:
            copy_video(content, storage.join(output, location), max_bytes)
        except TooLargeError as error:
            return str(error)
        self.items.append(Found(member.name, location))
        return ""

    def _add_text(self, content: bytes, is_json: bool) -> str:
        try:
            text = content.decode("utf-8-sig")
            if not is_json:
                self._text = text
            elif isinstance(value := json.loads(text), dict):
                self._json = value
            else:
                return "it is no JSON object"
        except (ValueError, RecursionError) as error:
            return f"it cannot be read ({' '.join(str(error).split())})"
        return ""

    def found(self) -> list[Found]:
        """Return the sample's videos with their caption, and what is wrong in it."""
        names = [self._caption_name] if self._caption_name else CAPTION_NAMES
        captions = [self._json.get(name) for name in names]
        if not self._caption_name:
            captions.insert(0, self._text)
        caption = next((" ".join(one.split()) for one in captions if isinstance(one, str) and one.strip()), None)
        return [item._replace(caption=caption) if item.video else item for item in self.items]


def split_name(name: str) -> tuple[str, str]:
    """Return key and extension of a member: "a/b.c.mp4" is the file "c.mp4" of the sample "a/b"."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return f"{folder}{slash}{stem}", extension


# --- export ------------------------------------------------------------------------------------------------------


def export_webdataset(
    table: FinishedTable, output: str, options: ExportOptions, advance: Callable[[int], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Write a table as tar shards 00000.tar, 00001.tar, ... and index.json, which lists them.

    A sample is named by its clip_id. `KEY.json` has every column that is no array, `KEY.txt` the caption,
    `KEY.thumbnail.jpg` and `KEY.NAME.npy` (or one `KEY.safetensors`) the rest. The same table gives the same bytes.

    Args:
        table: what to export.
        output: folder, empty or with an earlier export.
        options: which rows, and how.
        advance: called with the number of rows of each shard that is written.

    Returns:
        For each shard `url` (its name), `nsamples` and `filesize`, as in index.json.

    Raises:
        UserError: no row is chosen, or `output` holds something else.
    """
    output = storage.absolute(output)
    samples = _samples(table, options)
    first = next(samples, None)
    if first is None:
        raise options.nothing_chosen(table)
    begin_export(output, ".tar", [INDEX_NAME])
    shards: list[dict[str, Any]] = []
    while first is not None:
        name = f"{len(shards):05}.tar"
        with atomic_stream(storage.join(output, name)) as file:
            num_samples, size, first = _write_shard(file, first, samples, options.shard_bytes)
        shards.append({"url": name, "nsamples": num_samples, "filesize": size})
        advance(num_samples)
    index = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": table.kind, "shardlist": shards}
    storage.write_json(storage.join(output, INDEX_NAME), index)
    return shards


def _write_shard(
    file: Any, first: list[tuple[str, bytes]], samples: Iterator[list[tuple[str, bytes]]], target_bytes: int
) -> tuple[int, int, list[tuple[str, bytes]] | None]:
    """Write samples until the next one would make the shard too large; return their number, the bytes, and that one."""
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


def _tar_bytes(sample: list[tuple[str, bytes]]) -> int:
    return sum(_BLOCK + -(-len(content) // _BLOCK) * _BLOCK for _, content in sample)


def _samples(table: FinishedTable, options: ExportOptions) -> Iterator[list[tuple[str, bytes]]]:
    for row in kept(table, options):
        key = row["clip_id"]
        arrays = {name: value for name, value in row.items() if isinstance(value, np.ndarray)}
        blobs = {name: value for name, value in row.items() if isinstance(value, bytes)}
        rest = {name: json_value(value) for name, value in row.items() if name not in arrays | blobs}
        files = [(f"{key}.json", json.dumps(rest, sort_keys=True).encode())]
        if row.get("caption"):
            files.append((f"{key}.txt", row["caption"].encode()))
        files += [(f"{key}.{name}.{_extension(value)}", value) for name, value in sorted(blobs.items())]
        files += _array_files(key, arrays, options.arrays)
        if options.with_videos:
            suffix = row["source"].rpartition(".")[2].lower()
            files.append((f"{key}.{suffix}", source_bytes(row["source"])))
        yield files


def _array_files(key: str, arrays: dict[str, np.ndarray], form: str) -> list[tuple[str, bytes]]:
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
