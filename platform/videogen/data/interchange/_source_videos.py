"""Source videos of a table for export: each once, with its key, file name and content."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from videogen import storage
from videogen.data.interchange._export import ExportOptions
from videogen.data.isolation import shared_decoder
from videogen.data.sources import find_versions, version_mismatch
from videogen.data.tables import PublishedTable
from videogen.data.video import SUFFIXES, VideoError
from videogen.errors import UserError
from videogen.hashing import content_hash

_SUFFIX_OF_CONTAINER = {
    "mp4": ".mp4",
    "matroska": ".mkv",
    "avi": ".avi",
    "gif": ".gif",
    "mpegts": ".ts",
    "mpeg": ".mpg",
    "mpegvideo": ".mpg",
    "flv": ".flv",
    "asf": ".wmv",
    "ogg": ".ogv",
    "h264": ".h264",
    "hevc": ".hevc",
}
"""By `VideoInfo.container`."""

MEMBER_SUFFIXES = tuple(dict.fromkeys((*SUFFIXES, *_SUFFIX_OF_CONTAINER.values())))
"""File name suffixes of videos in shards."""

KEY_NAME = "video_key"
"""Column that joins the clips and videos of an export."""

_AT_ONCE = 65536
_COLUMNS = ("source", "version", "caption", "container")


class SourceVideo(NamedTuple):
    """One source file of clips."""

    source: str
    version: str
    caption: str | None
    """Caption of its first clip that has one."""
    container: str | None
    """Container from the probe; None if the table does not record it."""

    @property
    def key(self) -> str:
        """Its key in an export."""
        return video_key(self.source)

    def file_name(self) -> str:
        """Return its key with the suffix of the source or, if that has none, of its container.

        Raises:
            UserError: the container is unknown and the video cannot be read any more.
        """
        name = self.source.lower()
        suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)
        return f"{self.key}{suffix or _SUFFIX_OF_CONTAINER.get(self.container or _probed(self.source), '.mp4')}"

    def read(self) -> bytes:
        """Return the whole file.

        Raises:
            UserError: it does not exist any more.
        """
        try:
            return storage.read_bytes(self.source)
        except OSError as error:
            raise video_export_error(self.source, " ".join(str(error).split())) from error


def video_key(source: str) -> str:
    """Return the key in an export of the video at a URI."""
    return content_hash(source)


def source_videos(table: PublishedTable, options: ExportOptions) -> Iterator[SourceVideo]:
    """Yield the videos of the exported rows, in order of first appearance."""
    columns = [name for name in _COLUMNS if name in table.index_schema.names]
    batches = table.batches(columns, options.expression(table.index_schema.names))
    rows = itertools.chain.from_iterable(batch.to_pylist() for batch in batches)
    seen: set[str] = set()
    for source, group in itertools.groupby(rows, key=lambda row: str(row["source"])):
        if (key := video_key(source)) in seen:
            continue
        seen.add(key)
        first = next(group)
        captions = (row.get("caption") for row in itertools.chain([first], group))
        yield SourceVideo(source, first["version"], next(filter(None, captions), None), first.get("container"))


def measure_videos(table: PublishedTable, options: ExportOptions, max_bytes: int | None = None) -> tuple[int, int]:
    """Return the number and total size of the exported videos, without reading them.

    Raises:
        UserError: one is missing, was replaced, or is larger than `max_bytes`.
    """
    num_videos, num_bytes = 0, 0
    videos = source_videos(table, options)
    while some := list(itertools.islice(videos, _AT_ONCE)):
        for video, (now, size) in zip(some, find_versions([one.source for one in some], "Sources"), strict=True):
            if reason := version_mismatch(now, video.version):
                raise video_export_error(video.source, reason)
            if max_bytes is not None and (size or 0) > max_bytes:
                raise video_export_error(video.source, f"it has {size} bytes, and a parquet cell at most {max_bytes}")
            num_bytes += size or 0
        num_videos += len(some)
    return num_videos, num_bytes


def video_export_error(source: str, reason: str) -> UserError:
    """Return the error for a video that cannot be exported."""
    return UserError(f"Source {source!r} cannot be exported ({reason}): export without --with-videos.")


def _probed(source: str) -> str:
    try:
        return shared_decoder().probe(source).container
    except VideoError as error:
        raise video_export_error(source, str(error)) from error
