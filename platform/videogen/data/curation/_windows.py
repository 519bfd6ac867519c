"""Clip windows: the frames of a video that form each clip, planned from its metadata without decoding."""

import bisect
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from videogen.data.video import VideoInfo


@dataclass(frozen=True)
class Window:
    """One clip: frames of one shot, evenly spaced in time."""

    indices: tuple[int, ...]
    """Frame numbers in presentation order. At a variable frame rate, a number repeats while the picture is frozen; a
    window that is frozen throughout is skipped."""
    shot: int
    """Index of the shot in its video, from 0."""
    start_s: float
    end_s: float
    """End of the display time of the last frame; the clip covers [start_s, end_s)."""
    fps: float
    """Frames per second of the clip."""


@dataclass(frozen=True)
class WindowSpec:
    """Parameters for cutting videos into clips."""

    num_frames: int
    """Number of frames of a clip."""
    fps: float
    """Target frames per second; a clip's own rate is the nearest whole fraction of its video's."""
    stride_frames: int | None = None
    """Clip frames from one start to the next; None for consecutive clips without overlap or gap."""
    split_shots: bool = False
    """Whether to detect shots, so that no clip contains a cut. Decodes every frame."""

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise ValueError(f"num_frames is {self.num_frames}, but a clip has at least one frame")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps is {self.fps}, but the rate must be a number above 0")
        if self.stride_frames is not None and self.stride_frames < 1:
            raise ValueError(f"stride_frames is {self.stride_frames}, but the next clip starts at least 1 frame later")

    def windows(self, info: VideoInfo, shots: Sequence[tuple[int, int]] = ()) -> list[Window]:
        """Return the windows of a video in order of shot and start; none crosses a shot boundary.

        Every `step`-th frame is taken with an integer `step`, so that motion stays even: resampling 25 to 16 frames per
        second would cause judder. A shot too short for its step gets a smaller one. At a variable frame rate the step
        is a time, an integer multiple of the typical frame interval, and the frame nearest to each point is taken.

        Args:
            info: the video.
            shots: half-open frame ranges; empty if the video is one shot.
        """
        clock = clock_of(info)
        spans = list(shots) or [(0, info.num_frames)]
        return [
            window
            for shot, (start, end) in enumerate(spans)
            for window in ShotWindows(self, clock, shot, start).close(end)
        ]


class ShotWindows:
    """Windows of one shot, also while its end is not yet known.

    Args:
        spec: parameters of the windows.
        clock: `clock_of` the video.
        shot: index of the shot.
        start: its first frame.
    """

    def __init__(self, spec: WindowSpec, clock: "Clock", shot: int, start: int) -> None:
        self._spec, self._clock, self._shot, self._start = spec, clock, shot, start
        self._step = clock.step(spec.fps)
        self._number = 0  # of the next window; determines its position in the shot

    @property
    def oldest_needed(self) -> int:
        """First frame that future windows may need."""
        return self._clock.frame(self._start, self._number * self._stride)

    def known(self, end: int) -> Iterator[Window]:
        """Yield new windows that are final, whatever frames follow frame `end`."""
        return self._fitting(end, 0.0)

    def close(self, end: int) -> Iterator[Window]:
        """Yield the remaining windows of the shot, which ends before frame `end`."""
        tolerance = self._clock.tolerance
        if self._number == 0 and not self._fits(end, tolerance):
            # A shot too short for a single window gets the largest step that fits.
            self._step = self._clock.largest_step(self._start, end, self._spec.num_frames)
        if self._step > 0:
            yield from self._fitting(end, tolerance)

    def _fitting(self, end: int, tolerance: float) -> Iterator[Window]:
        while self._fits(end, tolerance):
            offset = self._number * self._stride
            points = (offset + i * self._step for i in range(self._spec.num_frames))
            indices = tuple(min(self._clock.frame(self._start, point), end - 1) for point in points)
            self._number += 1
            if indices[0] < indices[-1] or self._spec.num_frames == 1:
                times = self._clock.time(indices[0]), self._clock.time(indices[-1] + 1)
                yield Window(indices, self._shot, *times, fps=self._clock.rate(self._step))
            elif indices[0] + 1 < end:
                # The picture is frozen, in damaged files perhaps for years: continue where it next changes.
                here, there = (self._clock.offset(self._start, indices[0] + i) for i in (0, 1))
                whole_span = (self._spec.num_frames - 1) * self._step
                self._number = max(self._number, math.floor(((here + there) / 2 - whole_span) / self._stride))
            else:
                return

    def _fits(self, end: int, tolerance: float) -> bool:
        if end <= self._start:
            return False
        last = self._number * self._stride + (self._spec.num_frames - 1) * self._step
        return last <= self._clock.offset(self._start, end - 1) + tolerance

    @property
    def _stride(self) -> float:
        if self._spec.stride_frames is not None:
            return self._spec.stride_frames * self._step
        # The next clip starts with the frame after the last one.
        return (self._spec.num_frames - 1) * self._step + self._clock.unit


class Clock(Protocol):
    """Time axis of a video: in frames at a constant rate, in seconds at a variable rate."""

    unit: float
    """Typical frame interval."""
    tolerance: float
    """Largest distance of a point behind a shot's last frame that still maps to this frame."""

    def step(self, fps: float) -> float:
        """Return the frame interval of a clip for a target rate: an integer multiple of `unit`."""

    def largest_step(self, start: int, end: int, num_frames: int) -> float:
        """Return the largest step at which a clip fits into a shot; 0 if the shot has too few frames."""

    def frame(self, start: int, offset: float) -> int:
        """Return the frame nearest to the point `offset` after frame `start`."""

    def offset(self, start: int, index: int) -> float:
        """Return the distance from frame `start` to frame `index`."""

    def time(self, index: int) -> float:
        """Return the presentation time of a frame in seconds."""

    def rate(self, step: float) -> float:
        """Return the frames per second of a clip with this step."""


def clock_of(info: VideoInfo) -> Clock:
    """Return the time axis of a video."""
    return _VariableClock(info) if info.timestamps else _ConstantClock(info.fps)


class _ConstantClock:
    """Constant rate: frame i is displayed at i / fps."""

    unit: float = 1
    tolerance: float = 0

    def __init__(self, fps: float) -> None:
        self._fps = fps

    def step(self, fps: float) -> float:
        return max(1, round(self._fps / fps))

    def largest_step(self, start: int, end: int, num_frames: int) -> float:
        return (end - start - 1) // max(num_frames - 1, 1)

    def frame(self, start: int, offset: float) -> int:
        return start + int(offset)

    def offset(self, start: int, index: int) -> float:
        return index - start

    def time(self, index: int) -> float:
        return index / self._fps

    def rate(self, step: float) -> float:
        return self._fps / step


class _VariableClock:
    """Variable rate: frame i is displayed at timestamps[i]."""

    def __init__(self, info: VideoInfo) -> None:
        self._times = info.timestamps
        gaps = sorted(later - earlier for earlier, later in itertools.pairwise(self._times) if later > earlier)
        # The mean of the intervals near the median: dropped frames must not stretch it, and the median itself is
        # inaccurate where times are rounded to milliseconds.
        median = gaps[len(gaps) // 2] if gaps else 1 / info.fps
        usual = [gap for gap in gaps if median / 1.5 < gap < median * 1.5]
        self.unit = sum(usual) / len(usual) if usual else median
        # Containers round timestamps.
        self.tolerance = self.unit / 2

    def step(self, fps: float) -> float:
        return max(1, round(1 / (fps * self.unit))) * self.unit

    def largest_step(self, start: int, end: int, num_frames: int) -> float:
        if end - start < num_frames or num_frames < 2:
            return 0
        step = self.offset(start, end - 1) / (num_frames - 1)
        # With fewer frames than points, the clip would be slower than its video.
        distinct = len({self.frame(start, i * step) for i in range(num_frames)})
        return step if distinct == num_frames else 0

    def frame(self, start: int, offset: float) -> int:
        time = self._times[start] + offset
        right = bisect.bisect_left(self._times, time, lo=start, hi=len(self._times) - 1)
        if right > start and time - self._times[right - 1] <= self._times[right] - time:
            return right - 1
        return right

    def offset(self, start: int, index: int) -> float:
        return self._times[index] - self._times[start]

    def time(self, index: int) -> float:
        return self._times[index] if index < len(self._times) else self._times[-1] + self.unit

    def rate(self, step: float) -> float:
        return 1 / step
