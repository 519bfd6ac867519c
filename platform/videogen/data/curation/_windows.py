"""Windows: which frames of a video make a clip. Planning needs the probe's answer only; nothing is decoded here."""

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
    """Frame numbers in presentation order. In a video of variable rate a number repeats where the picture stands; where
    it stands for a whole window, there is none."""
    shot: int
    """Number of the shot in its video, from 0."""
    start_s: float
    end_s: float
    """When the last frame makes way for the next; [start_s, end_s) is the time that the clip was taken from."""
    fps: float
    """Frames a second of the clip."""


@dataclass(frozen=True)
class WindowSpec:
    """How videos are cut into clips."""

    num_frames: int
    """Frames of a clip."""
    fps: float
    """Frames a second that clips aim at; a clip's own rate is the nearest whole fraction of its video's."""
    stride_frames: int | None = None
    """Frames of a clip from one start to the next; None for clips that follow each other without overlap or gap."""
    split_shots: bool = False
    """Whether shots are looked for, so that no clip has a cut in it. Needs every frame to be decoded."""

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise ValueError(f"num_frames is {self.num_frames}, but a clip has at least one frame")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps is {self.fps}, but frames a second are a number above 0")
        if self.stride_frames is not None and self.stride_frames < 1:
            raise ValueError(f"stride_frames is {self.stride_frames}, but the next clip starts at least 1 frame later")

    def windows(self, info: VideoInfo, shots: Sequence[tuple[int, int]] = ()) -> list[Window]:
        """Return the windows of a video in order of shot and start; none crosses the border of a shot.

        Every `step`-th frame is taken, `step` whole, so that motion stays even: rounding 25 to 16 frames a second
        would make objects judder. A shot too short for its step is taken at a smaller one. In a video of variable
        rate the step is a time, a whole multiple of the usual distance of two frames, and the frame nearest to each
        point is taken.

        Args:
            info: the video.
            shots: half-open ranges of frame numbers; empty if the video is one shot.
        """
        clock = clock_of(info)
        spans = list(shots) or [(0, info.num_frames)]
        return [
            window
            for shot, (start, end) in enumerate(spans)
            for window in ShotWindows(self, clock, shot, start).close(end)
        ]


class ShotWindows:
    """Cuts one shot into windows, also while its end is not yet known.

    Args:
        spec: what windows look like.
        clock: `clock_of` the video.
        shot: number of the shot.
        start: its first frame.
    """

    def __init__(self, spec: WindowSpec, clock: "Clock", shot: int, start: int) -> None:
        self._spec, self._clock, self._shot, self._start = spec, clock, shot, start
        self._step = clock.step(spec.fps)
        self._number = 0  # of the next window; a window's place in the shot follows from it

    @property
    def oldest_needed(self) -> int:
        """First frame that windows to come may need."""
        return self._clock.frame(self._start, self._number * self._stride)

    def known(self, end: int) -> Iterator[Window]:
        """Return those windows, not returned before, that stay whatever follows the frames up to `end`."""
        return self._fitting(end, 0.0)

    def close(self, end: int) -> Iterator[Window]:
        """Return the windows that were not returned before, of the shot that ends before frame `end`."""
        tolerance = self._clock.tolerance
        if self._number == 0 and not self._fits(end, tolerance):
            # Only in a shot without a single whole window does its end decide how far frames are apart.
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
                # The picture stands, perhaps for years if a damaged file says so: go on where it next changes.
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
    """Where frames lie on a video's own axis: numbers of frames where they are evenly spaced, seconds where not."""

    unit: float
    """Usual distance of two frames."""
    tolerance: float
    """How far behind a shot's last frame a point may lie that this frame still stands for."""

    def step(self, fps: float) -> float:
        """Return the distance of two frames of a clip that aims at a rate, a whole multiple of `unit`."""

    def largest_step(self, start: int, end: int, num_frames: int) -> float:
        """Return the largest step at which a clip fits into a shot; 0 if it has too few frames."""

    def frame(self, start: int, offset: float) -> int:
        """Return the frame nearest to the point that lies `offset` after frame `start`."""

    def offset(self, start: int, index: int) -> float:
        """Return how far frame `index` lies after frame `start`."""

    def time(self, index: int) -> float:
        """Return the second at which a frame is shown."""

    def rate(self, step: float) -> float:
        """Return frames a second of a clip of such steps."""


def clock_of(info: VideoInfo) -> Clock:
    """Return a video's axis."""
    return _VariableClock(info) if info.timestamps else _ConstantClock(info.fps)


class _ConstantClock:
    """Frame i is shown at i / fps."""

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
    """Frame i is shown at timestamps[i]."""

    def __init__(self, info: VideoInfo) -> None:
        self._times = info.timestamps
        gaps = sorted(later - earlier for earlier, later in itertools.pairwise(self._times) if later > earlier)
        # A phone's usual distance, which the frames that it dropped must not stretch: around the median; and there
        # the mean, because times rounded to milliseconds have a median that is off.
        median = gaps[len(gaps) // 2] if gaps else 1 / info.fps
        usual = [gap for gap in gaps if median / 1.5 < gap < median * 1.5]
        self.unit = sum(usual) / len(usual) if usual else median
        # Containers round times.
        self.tolerance = self.unit / 2

    def step(self, fps: float) -> float:
        return max(1, round(1 / (fps * self.unit))) * self.unit

    def largest_step(self, start: int, end: int, num_frames: int) -> float:
        if end - start < num_frames or num_frames < 2:
            return 0
        step = self.offset(start, end - 1) / (num_frames - 1)
        # Fewer frames than points: the clip would be slower than its video.
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
