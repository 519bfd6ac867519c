"""Clip planning: which frames of which videos become clips. Reads headers only; nothing is decoded."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from videogen.config import FrameSize, nearest_size
from videogen.data.curation import AnalyseRequest, WindowSpec
from videogen.data.datasets.dataset import Shapes
from videogen.data.isolation import IsolatedDecoder
from videogen.data.sources import Video
from videogen.data.video import DECODE_SPEC, VideoError, VideoInfo
from videogen.errors import UserError
from videogen.hashing import content_hash
from videogen.stages import CascadeConfig


@dataclass(frozen=True)
class ClipSpec:
    """Length, rate and frame size of every clip of a table."""

    num_frames: int
    fps: float
    """Target frames per second; a clip's own rate is the nearest whole fraction of its video's."""
    size: int
    """Side of the decoded frames in pixels, or of the square of about their area."""
    frame_sizes: tuple[FrameSize, ...] = ()
    """Allowed heights and widths of a clip's frames, from the tallest to the widest; by default the square."""

    def __post_init__(self) -> None:
        if not self.frame_sizes:
            object.__setattr__(self, "frame_sizes", (FrameSize(self.size, self.size),))

    @classmethod
    def of(cls, config: CascadeConfig) -> Self:
        """Return the clips that a cascade is trained on: as long and as fast as the videos it generates."""
        return cls(config.num_output_frames, config.output_fps, config.resolution, config.frame_sizes)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the specification that `as_dict` described."""
        sizes = tuple(FrameSize(*size) for size in values.get("frame_sizes", ()))
        return cls(values["num_frames"], values["fps"], values["size"], sizes)

    def as_dict(self) -> dict[str, Any]:
        """Return everything that determines a clip's pixels, as JSON values."""
        values = {**asdict(self), **DECODE_SPEC}
        if self.frame_sizes == ((self.size, self.size),):
            # As in a configuration, the key is absent where all frames are square.
            del values["frame_sizes"]
        else:
            values["crop"] = "centre, in the shape of the nearest of frame_sizes"
        return values

    @property
    def window_spec(self) -> WindowSpec:
        """Windows of a video: consecutive, without overlap."""
        return WindowSpec(self.num_frames, self.fps)

    def frame_size(self, width: int, height: int) -> FrameSize:
        """Return the frame size of a clip that is displayed at `width` x `height` pixels."""
        return self.frame_sizes[int(nearest_size(width, height, self.frame_sizes))]

    def shapes(self, width: np.ndarray, height: np.ndarray, fps: np.ndarray) -> Shapes:
        """Return the shapes of clips from their displayed sizes, int64 (clips,), and rates, (clips,)."""
        numbers = nearest_size(width, height, self.frame_sizes)
        sides = np.array(self.frame_sizes, np.int32)
        frames = np.full(len(numbers), self.num_frames, np.int32)
        return Shapes(sides[numbers, 0], sides[numbers, 1], frames, np.asarray(fps, np.float32))


@dataclass(frozen=True)
class Clip:
    """Frames of a video, and its caption if the corpus has captions."""

    clip_id: str
    source: str
    """URI of the video."""
    frame_indices: tuple[int, ...]
    fps: float
    width: int
    height: int
    caption: str | None = None


@dataclass(frozen=True)
class Failure:
    """An input that yields no clip, and the reason."""

    uri: str
    stage: str
    error: str
    attempt: int = 1


@dataclass(frozen=True)
class Plan:
    """All clips of a corpus in a fixed order, and all videos that yield none."""

    clips: list[Clip]
    failures: list[Failure]

    def require_clips(self, what: str) -> list[Clip]:
        """Return the clips.

        Args:
            what: names the corpus in an error message, with its verb, e.g. "Data '/videos' hold".

        Raises:
            UserError: there is none.
        """
        if not self.clips:
            first = self.failures[0]
            raise UserError(f"{what} no usable video; of {first.uri!r}: {first.error}.")
        return self.clips


def clip_id(source: str, version: str, frame_indices: Sequence[int]) -> str:
    """Return the id of some frames of one version of a video."""
    return content_hash(source, version, tuple(frame_indices))


def too_short(num_frames: int, clip_frames: int) -> str:
    """Return the reason why a video yields no clip."""
    return f"it has {num_frames} frames, too few for a clip of {clip_frames}"


def plan_clips(videos: Sequence[Video], spec: ClipSpec, captioned: bool = False) -> Plan:
    """Cut videos into clips.

    Every video yields at least one clip or exactly one failure. The windows are those that ingest plans: both ask the
    isolated decoder to analyse a video without decoding it.

    Args:
        videos: the corpus, in order.
        spec: length, rate and size of a clip.
        captioned: whether a video without a caption is a failure.
    """
    clips: list[Clip] = []
    failures = [Failure(video.uri, "plan", "it has no caption") for video in videos if captioned and not video.caption]
    usable = [video for video in videos if not captioned or video.caption]
    for found in _plan_all(usable, spec):
        if isinstance(found, Failure):
            failures.append(found)
        else:
            clips += found
    return Plan(clips, failures)


def _plan_all(videos: Sequence[Video], spec: ClipSpec) -> list[list[Clip] | Failure]:
    """Plan each video; several headers are read at a time, each in a process of its own."""
    num_readers = min(4, os.cpu_count() or 1, len(videos)) or 1
    with ThreadPoolExecutor(num_readers) as pool:
        parts = pool.map(lambda first: _plan_part(videos[first::num_readers], spec), range(num_readers))
    found: list[list[Clip] | Failure] = [[] for _ in videos]
    for first, part in enumerate(parts):
        found[first::num_readers] = part
    return found


def _plan_part(videos: Sequence[Video], spec: ClipSpec) -> list[list[Clip] | Failure]:
    with IsolatedDecoder() as decoder:
        return [_plan_video(decoder, video, spec) for video in videos]


def _plan_video(decoder: IsolatedDecoder, video: Video, spec: ClipSpec) -> list[Clip] | Failure:
    try:
        header, _ = decoder.call("analyse", AnalyseRequest(video.uri, spec.window_spec).as_arguments())
    except VideoError as error:
        return Failure(video.uri, "probe", str(error))
    info = VideoInfo(**header["info"])
    if not header["clips"]:
        return Failure(video.uri, "plan", too_short(info.num_frames, spec.num_frames))
    return [
        Clip(
            clip_id(video.uri, video.version, found["indices"]),
            video.uri,
            tuple(found["indices"]),
            found["fps"],
            info.display_width,
            info.height,
            video.caption,
        )
        for found in header["clips"]
    ]
