"""Clips: which frames of which videos become rows. Planning reads headers only; nothing is decoded here."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from videogen import storage
from videogen.config import CascadeConfig, FrameSize, nearest_size
from videogen.data.curation import WindowSpec
from videogen.data.datasets.dataset import Shapes
from videogen.data.isolation import IsolatedDecoder
from videogen.data.sources import open_source
from videogen.data.video import DECODE_SPEC, VideoError, VideoInfo
from videogen.errors import UserError
from videogen.hashing import content_hash

if TYPE_CHECKING:
    import pyarrow as pa

CAPTIONS_NAME = "captions.parquet"
"""A corpus folder that holds a table of this name is a captioned corpus."""


@dataclass(frozen=True)
class ClipSpec:
    """What every clip of a table looks like."""

    num_frames: int
    fps: float
    """Frames a second that clips aim at; a clip's own rate is the nearest whole fraction of its video's."""
    size: int
    """Pixels a side of the decoded frames, or of the square of about their area."""
    frame_sizes: tuple[FrameSize, ...] = ()
    """Height and width that the frames of a clip may have, from the tallest to the widest; by default the square."""

    def __post_init__(self) -> None:
        if not self.frame_sizes:
            object.__setattr__(self, "frame_sizes", (FrameSize(self.size, self.size),))

    @classmethod
    def of(cls, config: CascadeConfig) -> Self:
        """Return what a cascade is trained on: clips as long and as fast as the videos it makes."""
        return cls(config.num_output_frames, config.output_fps, config.resolution, config.frame_sizes)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return what `as_dict` gave."""
        sizes = tuple(FrameSize(*size) for size in values.get("frame_sizes", ()))
        return cls(values["num_frames"], values["fps"], values["size"], sizes)

    def as_dict(self) -> dict[str, Any]:
        """Return all that decides a clip's pixels, as JSON."""
        values = {**asdict(self), **DECODE_SPEC}
        if self.frame_sizes == ((self.size, self.size),):
            # As in a configuration: where all is square, nothing says so.
            del values["frame_sizes"]
        else:
            values["crop"] = "centre, in the shape of the nearest of frame_sizes"
        return values

    def frame_size(self, width: int, height: int) -> FrameSize:
        """Return the size of the frames of a clip that is displayed at `width` x `height` pixels."""
        return self.frame_sizes[nearest_size(width, height, self.frame_sizes)]

    def shapes(self, width: np.ndarray, height: np.ndarray, fps: np.ndarray) -> Shapes:
        """Return the shapes of clips that are displayed at these sizes, int64 (clips,), at these rates, (clips,)."""
        numbers = nearest_size(width, height, self.frame_sizes)
        sides = np.array(self.frame_sizes, np.int32)
        frames = np.full(len(numbers), self.num_frames, np.int32)
        return Shapes(sides[numbers, 0], sides[numbers, 1], frames, np.asarray(fps, np.float32))

    def windows(self, info: VideoInfo) -> list[tuple[int, ...]]:
        """Return the frame numbers of each clip of a video, without overlap; see `WindowSpec`."""
        return [window.indices for window in WindowSpec(self.num_frames, self.fps).windows(info)]


@dataclass(frozen=True)
class Video:
    """One file of a corpus."""

    uri: str
    path: str
    """Relative to the corpus folder; captions name videos by it."""
    version: str
    """Changes when the file is replaced: its ETag, or size and modification time."""


@dataclass(frozen=True)
class Clip:
    """One row to be: frames of a video, and its caption if the corpus has captions."""

    clip_id: str
    source: str
    frame_indices: tuple[int, ...]
    fps: float
    width: int
    height: int
    caption: str | None = None


@dataclass(frozen=True)
class Failure:
    """One input that gave no row, and why."""

    uri: str
    stage: str
    error: str
    attempt: int = 1


@dataclass(frozen=True)
class Plan:
    """Every clip of a corpus in a fixed order, and every video that gives none."""

    clips: list[Clip]
    failures: list[Failure]


def list_videos(uri: str, what: str = "Input") -> list[Video]:
    """Return the videos of a source (see `videogen.data.sources.open_source`), sorted by path.

    Raises:
        UserError: missing or unreadable, empty, or without any video.
    """
    rows = (row for batch in open_source(uri, what=what).batches() for row in batch.to_pylist())
    return [Video(row["uri"], row["path"], row["version"]) for row in rows]


def read_captions(uri: str, videos: Sequence[Video]) -> dict[str, str]:
    """Return the caption of each video by its path.

    Args:
        uri: a parquet table with the columns `video` (path in the corpus folder, or URI) and `caption`.
        videos: the corpus.

    Raises:
        UserError: not such a table, or it describes none of the videos.
    """
    table = _read_table(uri)
    missing = [name for name in ("video", "caption") if name not in table.column_names]
    if missing:
        raise UserError(
            f"Captions {uri!r} have no column {missing[0]!r} (they have {', '.join(table.column_names) or 'none'}): "
            f"name the columns `video` and `caption`."
        )
    by_name = {name: video.path for video in videos for name in (video.path, video.uri)}
    captions = {}
    for name, caption in zip(table["video"].to_pylist(), table["caption"].to_pylist(), strict=True):
        path = by_name.get(str(name).removeprefix("./")) or by_name.get(str(name).removeprefix("file://"))
        if path and caption and str(caption).strip():
            captions[path] = " ".join(str(caption).split())
    if not captions:
        example = str(table["video"][0].as_py()) if len(table) else "nothing"
        raise UserError(
            f"Captions {uri!r} describe none of the {len(videos)} videos (they name {example!r}, the corpus holds "
            f"{videos[0].path!r}): `video` must be a path relative to the corpus folder, and `caption` not empty."
        )
    return captions


def _read_table(uri: str) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.parquet as pq

    storage.require_readable(uri, "Captions")
    filesystem, path = storage.arrow_filesystem(uri)
    try:
        return pq.read_table(path, filesystem=filesystem)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"Captions {uri!r} are not a parquet table ({str(error).splitlines()[0]}).") from error


def plan_clips(videos: Sequence[Video], spec: ClipSpec, captions: Mapping[str, str] | None = None) -> Plan:
    """Cut a corpus into clips.

    Every video gives at least one clip or exactly one failure.

    Args:
        videos: the corpus.
        spec: length, rate and size of a clip.
        captions: caption of each video by its path; None for an uncaptioned corpus.
    """
    clips: list[Clip] = []
    failures: list[Failure] = []
    described = [video for video in videos if captions is None or video.path in captions]
    if captions is not None:
        failures += [Failure(video.uri, "plan", "it has no caption") for video in videos if video.path not in captions]
    for video, info in zip(described, _probe_all(described), strict=True):
        if isinstance(info, VideoError):
            failures.append(Failure(video.uri, "probe", str(info)))
            continue
        windows = spec.windows(info)
        if not windows:
            message = f"it has {info.num_frames} frames, fewer than the {spec.num_frames} of a clip"
            failures.append(Failure(video.uri, "plan", message))
        caption = None if captions is None else captions[video.path]
        clips += [_clip(video, info, window, caption) for window in windows]
    return Plan(clips, failures)


def _clip(video: Video, info: VideoInfo, window: tuple[int, ...], caption: str | None) -> Clip:
    step = window[1] - window[0] if len(window) > 1 else 1
    clip_id = content_hash(video.uri, video.version, window)
    return Clip(clip_id, video.uri, window, info.fps / step, info.display_width, info.height, caption)


def _probe_all(videos: Sequence[Video]) -> list[VideoInfo | VideoError]:
    """Read every header, several at a time, each reader in a process of its own."""
    num_readers = min(4, os.cpu_count() or 1, len(videos)) or 1
    with ThreadPoolExecutor(num_readers) as pool:
        parts = pool.map(_probe_part, [videos[index::num_readers] for index in range(num_readers)])
    found: list[VideoInfo | VideoError] = [VideoError("not probed")] * len(videos)
    for index, part in enumerate(parts):
        found[index::num_readers] = part
    return found


def _probe_part(videos: Sequence[Video]) -> list[VideoInfo | VideoError]:
    found: list[VideoInfo | VideoError] = []
    with IsolatedDecoder() as decoder:
        for video in videos:
            try:
                found.append(decoder.probe(video.uri))
            except VideoError as error:
                found.append(error)
    return found
