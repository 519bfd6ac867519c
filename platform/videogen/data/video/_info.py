"""Properties of a video file, and the error of a file that cannot be read."""

import re
from dataclasses import dataclass

SUFFIXES = (
    *(".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif", ".ts", ".mpg", ".mpeg", ".flv"),
    *(".wmv", ".asf", ".ogv", ".3gp", ".3g2", ".mts", ".m2ts", ".vob", ".m2v", ".f4v"),
    *(".264", ".h264", ".265", ".hevc"),
)
"""File name suffixes by which videos are found in a folder."""

_NATIVE_PREFIX = re.compile(r"^\[[\d:]+\] \S+:\d+: ")
"""Prefix of decord's messages: "[12:34:56] /path/of/its/source.cc:171: "."""


class VideoError(RuntimeError):
    """A video that cannot be read. The message is the reason, without the name of the video."""

    log_tail: str = ""
    """Last output of the native libraries, where the video was read in a child process."""


def reason_of(error: BaseException) -> str:
    """Return the message of an exception without the source locations and stack traces of native libraries."""
    # FFmpeg's errors have `strerror` like those of the operating system, without being OSErrors.
    if description := getattr(error, "strerror", None):
        return str(description)
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "Stack trace" not in line]
    text = next((line for line in lines if not line.startswith("[bt]")), type(error).__name__)
    return _NATIVE_PREFIX.sub("", text)[:200]


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video file, measured from its packets."""

    num_frames: int
    """Number of displayed frames, counted from packets."""
    fps: float
    """Average frames per second."""
    width: int
    """Width of a decoded frame after rotation, in pixels; likewise the height."""
    height: int
    duration_s: float = 0.0
    variable_fps: bool = False
    rotation: int = 0
    """Clockwise rotation that players apply to the stored picture: 0, 90, 180 or 270 degrees."""
    sample_aspect_ratio: float = 1.0
    """Displayed width of a pixel over its height, after rotation: usually 1, but e.g. 128 / 117 in QCIF."""
    container: str = ""
    codec: str = ""
    pixel_format: str = ""
    color_range: str = ""
    """"limited", "full", or "" if the file does not specify it."""
    has_audio: bool = False
    timestamps: tuple[float, ...] = ()
    """Presentation time of each frame in seconds from the first; () at a constant rate, where it is i / fps."""
    num_video_streams: int = 1
    """Video streams in the file. All properties are of the default one; with several, decoders may disagree on it."""
    exact_seek: bool = True
    """Whether decoding may start at any key frame: false if pictures refer across key frames or have no timestamps."""

    @property
    def display_width(self) -> int:
        """Width in square pixels of a frame that is `height` pixels high."""
        return max(1, round(self.width * self.sample_aspect_ratio))
