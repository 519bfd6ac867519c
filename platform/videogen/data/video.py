"""Video files: what is in them, their frames, and how finished frames become an mp4.

Everything here runs in the calling process. Whoever reads videos that it has not made itself goes through
`videogen.data.isolated`, which does the same in a process that may die.
"""

import contextlib
import io
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from videogen import storage

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif")
"""Names that count as videos when a folder is searched."""

DECODE_SPEC = {"decoder": "decord 0.6", "crop": "centre square", "resize": "bicubic, antialiased", "range": "uint8 RGB"}
"""What makes two decodes of the same file equal; part of every table of latents."""

_FRAMES_AT_ONCE = 8
"""Full-size frames held in memory; a 4K frame is 25 MB."""

_NATIVE_PREFIX = re.compile(r"\[[\d:]+\] \S+:\d+: ")


class VideoError(RuntimeError):
    """A video that cannot be read. The message says why; the caller knows which video."""


@dataclass(frozen=True)
class VideoInfo:
    """What a video's container says about it."""

    num_frames: int
    fps: float
    width: int
    height: int


def probe(uri: str) -> VideoInfo:
    """Read a video's header, wherever it is stored, without fetching or decoding all of it.

    Raises:
        VideoError: not a video, or no frames in it.
    """
    import av

    try:
        filesystem, path = storage.fsspec_filesystem(uri)
        with filesystem.open(path, "rb") as file, av.open(file) as container:
            if not container.streams.video:
                raise VideoError("it has no video stream")
            stream = container.streams.video[0]
            fps = stream.average_rate or stream.guessed_rate
            # Some containers do not say how many frames they hold; their packets do.
            num_frames = stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
            info = VideoInfo(num_frames, float(fps or 0), stream.width, stream.height)
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"it is not a readable video ({_reason(error)})") from error
    if not (info.num_frames and info.fps and info.width and info.height):
        raise VideoError(f"its header names no frames ({info.num_frames} frames, {info.width} x {info.height})")
    return info


def read_frames(source: str | bytes, indices: Sequence[int], size: int) -> np.ndarray:
    """Decode frames, cut to the central square and resized.

    Args:
        source: URI of the video, or its content.
        indices: frame numbers in display order; any order, repetitions allowed.
        size: pixels a side of the result.

    Returns:
        uint8 RGB, shape (len(indices), size, size, 3).

    Raises:
        VideoError: unreadable, or it has no frame of such a number.
    """
    import decord

    frames = np.empty((len(indices), size, size, 3), np.uint8)
    try:
        with _openable(source) as opened:
            # One thread: the caller runs as many decoders as it has cores.
            reader = decord.VideoReader(opened, num_threads=1)
            if len(reader) <= max(indices, default=0):
                raise VideoError(f"frame {max(indices)} was asked of a video of {len(reader)} frames")
            for start in range(0, len(indices), _FRAMES_AT_ONCE):
                wanted = [int(index) for index in indices[start : start + _FRAMES_AT_ONCE]]
                frames[start : start + len(wanted)] = resize_frames(reader.get_batch(wanted).asnumpy(), size)
    except (decord.DECORDError, OSError, RuntimeError) as error:
        if isinstance(error, VideoError):
            raise
        raise VideoError(f"its frames cannot be decoded ({_reason(error)})") from error
    return frames


@contextlib.contextmanager
def _openable(source: str | bytes) -> Iterator[str | io.BytesIO]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    with storage.local_copy(source) as path:
        yield str(path)


def _reason(error: BaseException) -> str:
    """Return what an exception says, without the source lines and stack that native ones carry."""
    # FFmpeg's errors have it as the system's do, without being OSErrors.
    if description := getattr(error, "strerror", None):
        return str(description)
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "Stack trace" not in line]
    text = next((line for line in lines if not line.startswith("[bt]")), type(error).__name__)
    return _NATIVE_PREFIX.sub("", text)[:200]


def resize_frames(frames: np.ndarray, size: int) -> np.ndarray:
    """Cut uint8 frames (F, H, W, 3) to the central square and resize them, antialiased, to (F, size, size, 3)."""
    height, width = frames.shape[1:3]
    if height == width == size:
        return frames
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    images = [Image.fromarray(frame).resize((size, size), Image.Resampling.BICUBIC, box=box) for frame in frames]
    return np.stack([np.asarray(image) for image in images])


def write_mp4(frames: np.ndarray, fps: float, crf: int = 14) -> bytes:
    """Encode frames as H.264 in an mp4 that browsers play while it loads.

    Args:
        frames: uint8 RGB, (F, H, W, 3), height and width even (H.264 halves the colour planes).
        fps: frames a second.
        crf: quality, lower is better; 14 is visually lossless.
    """
    import av

    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise ValueError(f"frames must be uint8 (F, H, W, 3) with F > 0, not {frames.dtype} {frames.shape}")
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise ValueError(f"frames are {frames.shape[2]} x {frames.shape[1]}, but H.264 needs even sides")
    rate = Fraction(fps).limit_denominator(1001)
    # To put the index first, FFmpeg reads its own output again, which it can only do with a file.
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        with av.open(file.name, "w", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": "fast"})
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            # One thread gives the same bytes on every machine.
            stream.thread_count = 1
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        return Path(file.name).read_bytes()
