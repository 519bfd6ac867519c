"""The error of a video that cannot be read, and what native libraries' errors say without their source lines."""

import re
from dataclasses import dataclass

SUFFIXES = (
    *(".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif", ".ts", ".mpg", ".mpeg", ".flv"),
    *(".wmv", ".asf", ".ogv", ".3gp", ".3g2", ".mts", ".m2ts", ".vob", ".m2v", ".f4v"),
    *(".264", ".h264", ".265", ".hevc"),
)
"""Names that count as videos when a folder is searched."""

_NATIVE_PREFIX = re.compile(r"^\[[\d:]+\] \S+:\d+: ")
"""decord's "[12:34:56] /path/of/its/source.cc:171: "."""


class VideoError(RuntimeError):
    """A video that cannot be read. The message says why; the caller knows which video."""

    log_tail: str = ""
    """The last that native libraries printed about it, where it was read in a child process."""


def reason_of(error: BaseException) -> str:
    """Return what an exception says, without the source lines and stack that native ones carry."""
    # FFmpeg's errors have it as the system's do, without being OSErrors.
    if description := getattr(error, "strerror", None):
        return str(description)
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "Stack trace" not in line]
    text = next((line for line in lines if not line.startswith("[bt]")), type(error).__name__)
    return _NATIVE_PREFIX.sub("", text)[:200]


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds."""

    num_frames: int
    """Frames that a player would show, counted from packets."""
    fps: float
    """Frames a second, on average."""
    width: int
    """Pixels of a decoded frame after rotation; likewise the height."""
    height: int
    duration_s: float = 0.0
    variable_fps: bool = False
    rotation: int = 0
    """Degrees by which players turn the stored picture clockwise: 0, 90, 180 or 270."""
    sample_aspect_ratio: float = 1.0
    """Width of one pixel over its height as displayed, after rotation: 1 nearly everywhere, 128 / 117 in QCIF."""
    container: str = ""
    codec: str = ""
    pixel_format: str = ""
    color_range: str = ""
    """"limited", "full", or "" where the file does not say."""
    has_audio: bool = False
    timestamps: tuple[float, ...] = ()
    """When each frame is shown, in seconds from the first; () at a constant rate, where frame i is shown at i / fps."""
    num_video_streams: int = 1
    """The one that players show is meant; with several, decoders of different ages disagree which one that is."""
    exact_seek: bool = True
    """Whether decoding may begin at any key frame: not where pictures refer across key frames or carry no times."""

    @property
    def display_width(self) -> int:
        """Width in pixels as high as they are wide, of which the height has `height`."""
        return max(1, round(self.width * self.sample_aspect_ratio))
