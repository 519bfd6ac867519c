"""Building blocks of the test videos: numbered pictures, and their encoding with PyAV."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

os.environ.setdefault("SVT_LOG", "1")  # errors only: the AV1 encoder introduces itself at each video

WIDTH, HEIGHT, NUM_FRAMES, FPS = 96, 64, 24, 12
FULL, BT709 = 2, 1
GOP = {"g": "8", "bf": "0"}
X264 = {"preset": "fast", "crf": "14"}
VFR_TICKS = [0, 1, 2, 3, 4, 5, 10, 15, 20, 25, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 50, 60, 61, 62]
"""When the frames of videos of variable rate are shown, in 1/25 s."""

Frames = list[np.ndarray]
Writer = Callable[[Path, int], None]
"""Writes a file; the number is the seed of its pictures."""


@dataclass(frozen=True)
class Kind:
    """One kind of file."""

    write: Writer
    good: bool
    """Whether it must be read; a bad one must become a VideoError, without harm to anything else."""
    why: str
    suffix: str = ".mp4"
    shown: tuple[int, ...] = tuple(range(NUM_FRAMES))
    """Numbers of the pictures that its frames show."""
    width: int = WIDTH
    height: int = HEIGHT
    hangs: bool = False
    """Opening it waits for ever, so it costs its reader the whole time limit."""

    @property
    def num_frames(self) -> int:
        """Number of frames that a probe must count."""
        return len(self.shown)


KINDS: dict[str, Kind] = {}


def make(kind: str, path: Path, seed: int = 0) -> None:
    """Write a file of this kind."""
    KINDS[kind].write(Path(path), seed)


def picture(number: int, width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> np.ndarray:
    """Return frame `number` as displayed: the bits of its number above, a moving square on a gradient below."""
    rng = np.random.default_rng(seed)
    left, right = rng.integers(40, 216, (2, 3))
    ramp = np.linspace(0, 1, width)[None, :, None]
    image = np.broadcast_to(left + (right - left) * ramp, (height, width, 3)).astype(np.uint8).copy()
    bits = height // 2
    for bit in range(8):
        band = slice(bit * width // 8, (bit + 1) * width // 8)
        image[:bits, band] = 255 if number >> bit & 1 else 0
    side = max(2, height // 6)
    x = (number * 3 + seed) % max(1, width - side)
    image[-side - 2 : -2, x : x + side] = [220, 40, 60]
    return image


def number_in(frame: np.ndarray) -> int:
    """Return the number that a decoded frame (H, W, 3) carries."""
    height, width = frame.shape[:2]
    middle = frame[height // 8 : 3 * height // 8].mean((0, 2))
    return sum(int(middle[(2 * bit + 1) * width // 16] > 127) << bit for bit in range(8))


def pictures(count: int = NUM_FRAMES, width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> Frames:
    """Return the first frames."""
    return [picture(number, width, height, seed) for number in range(count)]


def encode(
    path: Path,
    frames: Frames,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    *,
    ticks: list[int] | None = None,
    time_base: Fraction = Fraction(1, FPS),
    options: dict[str, str] | None = None,
    audio: str = "",
    muxer: dict[str, str] | None = None,
    container_format: str | None = None,
    setup: Callable[[Any], None] | None = None,
    color_range: int = 0,
) -> None:
    """Encode frames; `ticks` are their times in units of `time_base`, `color_range` is 0 (unspecified) or FULL."""
    with _own_priority(), av.open(str(path), "w", options=muxer or {}, format=container_format) as container:
        stream = container.add_stream(codec, rate=Fraction(1) / time_base, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.time_base = stream.codec_context.time_base = time_base
        stream.thread_count = 1
        stream.codec_context.color_range = color_range
        if setup is not None:
            setup(stream)
        sound = container.add_stream(audio, rate=16000) if audio else None
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = frame.reformat(format=pixel_format, dst_color_range="JPEG" if color_range == FULL else None)
            frame.color_range = color_range
            frame.pts = ticks[number] if ticks else number
            frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            add_sound(container, sound)


@contextlib.contextmanager
def _own_priority() -> Iterator[None]:
    """Undo what SVT-AV1 does to the thread that calls it where it runs as root: real-time priority above all others.

    Every process that is started later would inherit it, a whole Ray cluster among them.
    """
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def add_sound(container: Any, stream: Any, seconds: int = 2) -> None:
    """Encode silence."""
    for second in range(seconds):
        layout = stream.codec_context.layout.name if stream.codec_context.layout else "mono"
        channels = 2 if layout == "stereo" else 1
        form = stream.codec_context.format.name
        samples = np.zeros((channels, 16000), np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = 16000, second * 16000
        resampled = av.AudioResampler(format=form, layout=layout, rate=16000).resample(frame)
        for part in resampled:
            container.mux(stream.encode(part))
    container.mux(stream.encode())


def good_kind(name: str, why: str, **facts: Any) -> Callable[[Writer], Writer]:
    return _kind(name, True, why, **facts)


def bad_kind(name: str, why: str, **facts: Any) -> Callable[[Writer], Writer]:
    return _kind(name, False, why, **{"shown": (), **facts})


def _kind(name: str, good: bool, why: str, **facts: Any) -> Any:
    def add(write: Writer) -> Writer:
        KINDS[name] = Kind(write, good, why, **facts)
        return write

    return add
