"""Video analysis in one pass: shots, windows, and the scores of each window.

Runs in the child process of `videogen.data.isolation` (operation "analyse"); the parent requests it with

    decoder.call("analyse", AnalyseRequest(source=uri, windows=WindowSpec(16, 8.0)).as_arguments(), limit_s)
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from videogen.data.curation._pictures import encode_jpeg, shrink, thumbnail
from videogen.data.curation._shots import DELAY, ShotDetector
from videogen.data.curation._windows import ShotWindows, Window, WindowSpec, clock_of
from videogen.data.curation.duplicates import perceptual_hash
from videogen.data.curation.scores import SCORES, SHORT_SIDE, ClipFrames
from videogen.data.video import MAX_FILE_BYTES, OpenVideo, VideoError, VideoInfo, local_file, open_video, probe

_SAMPLE_QUALITY = 95
"""JPEG quality at which learned models give the same results as for the original frames."""


@dataclass(frozen=True)
class AnalyseRequest:
    """Requested analysis of a video. Without shots, scores and pictures, nothing is decoded."""

    source: str
    """URI or path of the video."""
    windows: WindowSpec
    scores: tuple[str, ...] = ()
    """Names in `SCORES`."""
    phash: bool = False
    """Whether to compute a `perceptual_hash` of each clip."""
    thumbnails: bool = False
    num_samples: int = 0
    """Number of evenly spaced frames of each clip that are returned for learned models."""
    sample_short_side: int = 336
    """Length of the shorter side of such a frame in pixels; frames are never upsampled."""
    decoder: str = "auto"
    """See `open_video`."""
    max_file_bytes: int = MAX_FILE_BYTES
    """Larger remote files are refused."""
    max_buffer_bytes: int = 512 * 2**20
    """Limit on the buffered frames of incomplete windows; 16 frames at 144 pixels take about 2 MB."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.scores if name not in SCORES]
        if unknown:
            raise ValueError(f"there is no score {unknown[0]!r}: choose from {', '.join(SCORES)}")

    @property
    def needs_frames(self) -> bool:
        """Whether frames must be decoded, beyond planning windows."""
        return bool(self.scores or self.phash or self.thumbnails or self.num_samples)

    def as_arguments(self) -> dict[str, Any]:
        """Return the request as JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, arguments: dict[str, Any]) -> Self:
        """Return the request that `as_arguments` described."""
        windows = WindowSpec(**arguments["windows"])
        return cls(**{**arguments, "windows": windows, "scores": tuple(arguments.get("scores", ()))})


def analyse_request(arguments: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Analyse one video; see `AnalyseRequest` for the arguments.

    Returns:
        A JSON header and a body of JPEGs. The header has `info` (a `VideoInfo`), `decoder` ("" if nothing was decoded),
        `shots` (half-open frame ranges; [] if not requested) and `clips`, in order: for each its `indices`, `shot`,
        `start_s`, `end_s`, `fps`, `scores` (name to number), `phash` (16 hexadecimal digits or None), `thumbnail`
        (offset and length in the body, or None) and `samples` (a list of such).

    Raises:
        VideoError: it cannot be read, or a clip spans more frames than fit in memory.
    """
    import cv2

    # The caller runs one analysis per core.
    cv2.setNumThreads(1)
    request = AnalyseRequest.of(arguments)
    with local_file(request.source, request.max_file_bytes) as path:
        info = probe(path)
        header: dict[str, Any] = {"info": asdict(info), "decoder": "", "shots": [], "clips": []}
        if not (request.needs_frames or request.windows.split_shots):
            header["clips"] = [_entry(window) for window in request.windows.windows(info)]
            return header, b""
        body = bytearray()
        with open_video(path, info, request.decoder) as video:
            analysis = _Pass(video, info, request)
            header["clips"] = [_analysed(window, frames, request, body) for window, frames in analysis.clips()]
            header["shots"] = analysis.shots
            header["decoder"] = video.decoder
    return header, bytes(body)


@dataclass(frozen=True)
class _Frame:
    """One frame, downsampled for scores and for learned models."""

    small: np.ndarray
    sample: np.ndarray | None

    @property
    def num_bytes(self) -> int:
        return self.small.nbytes + (0 if self.sample is None else self.sample.nbytes)


class _Pass:
    """Reads a video once and yields its clips, buffering the frames of one window at a time."""

    def __init__(self, video: OpenVideo, info: VideoInfo, request: AnalyseRequest) -> None:
        self._video, self._info, self._request = video, info, request
        self._frames: dict[int, _Frame] = {}
        self._num_bytes = 0
        self.shots: list[tuple[int, int]] = []

    def clips(self) -> Iterator[tuple[Window, list[_Frame]]]:
        """Yield each window and its frames in order; without the frames if they are not needed."""
        windows = self._windows_of_shots() if self._request.windows.split_shots else self._planned_windows()
        for window in windows:
            yield window, [self._frames[index] for index in window.indices] if self._request.needs_frames else []

    def _planned_windows(self) -> Iterator[Window]:
        """Yield windows planned in advance; only their frames are read."""
        windows = deque(self._request.windows.windows(self._info))
        needed = sorted({index for window in windows for index in window.indices})
        frames = (frame for frames in self._video.read(needed) for frame in frames)
        for index, frame in zip(needed, frames, strict=True):
            self._keep(index, frame, self._shrink(frame, SHORT_SIDE))
            while windows and windows[0].indices[-1] <= index:
                yield windows.popleft()
            self._forget(before=windows[0].indices[0] if windows else index + 1)

    def _windows_of_shots(self) -> Iterator[Window]:
        """Yield windows while shots are being detected."""
        spec, clock = self._request.windows, clock_of(self._info)
        detector = ShotDetector(self._info.fps)
        start = index = 0
        shot = ShotWindows(spec, clock, 0, start)
        for index, frame in self._video.stream():
            small = self._shrink(frame, SHORT_SIDE)
            if self._request.needs_frames:
                self._keep(index, frame, small)
            cut = detector.feed(small)
            if cut is not None:
                yield from shot.close(cut)
                self.shots.append((start, cut))
                start, shot = cut, ShotWindows(spec, clock, len(self.shots), cut)
            # A cut in the last few frames may not have been reported yet.
            yield from shot.known(index + 1 - DELAY)
            self._forget(before=shot.oldest_needed)
        yield from shot.close(index + 1)
        self.shots.append((start, index + 1))

    def _shrink(self, frame: np.ndarray, short_side: int) -> np.ndarray:
        return shrink(frame, short_side, self._info.sample_aspect_ratio)

    def _keep(self, index: int, frame: np.ndarray, small: np.ndarray) -> None:
        sample = self._shrink(frame, self._request.sample_short_side) if self._request.num_samples else None
        # Copied if it was not resized: a view would keep a whole batch of decoded frames alive.
        kept = _Frame(small.copy() if small is frame else small, sample)
        self._frames[index] = kept
        self._num_bytes += kept.num_bytes
        if self._num_bytes > self._request.max_buffer_bytes:
            raise VideoError(f"a clip of it spans more than the {len(self._frames)} frames that fit in memory")

    def _forget(self, before: int) -> None:
        while self._frames and (oldest := next(iter(self._frames))) < before:
            self._num_bytes -= self._frames.pop(oldest).num_bytes


def _entry(window: Window) -> dict[str, Any]:
    """Return the entry of a clip without scores and pictures."""
    nothing: dict[str, Any] = {"scores": {}, "phash": None, "thumbnail": None, "samples": []}
    return {**asdict(window), "indices": list(window.indices), **nothing}


def _analysed(window: Window, frames: Sequence[_Frame], request: AnalyseRequest, body: bytearray) -> dict[str, Any]:
    """Return the entry of a clip with everything requested; its pictures are appended to `body`."""
    entry = _entry(window)
    if not request.needs_frames:
        return entry
    clip = ClipFrames(np.stack([frame.small for frame in frames]), window.fps)
    entry["scores"] = {name: SCORES[name](clip) for name in request.scores}
    if request.phash and (phash := perceptual_hash(clip)) is not None:
        entry["phash"] = f"{phash:016x}"
    if request.thumbnails:
        entry["thumbnail"] = _append(body, thumbnail([frame.small for frame in frames]))
    if request.num_samples:
        samples = [frames[index].sample for index in clip.spread(request.num_samples)]
        pictures = [encode_jpeg(sample, _SAMPLE_QUALITY) for sample in samples if sample is not None]
        entry["samples"] = [_append(body, picture) for picture in pictures]
    return entry


def _append(body: bytearray, content: bytes) -> list[int]:
    body += content
    return [len(body) - len(content), len(content)]
