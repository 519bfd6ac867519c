"""Video probing from packets, because headers are unreliable about frame counts, rates and durations."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from videogen.data.video._bitstreams import is_clean_entry, is_hidden
from videogen.data.video._info import VideoError, VideoInfo, reason_of
from videogen.data.video._local_file import MAX_FILE_BYTES, local_file

if TYPE_CHECKING:
    import av.container
    import av.packet
    import av.video.stream

CONTAINERS = "mov,mp4,matroska,webm,avi,gif,mpegts,mpeg,flv,asf,ogg,mpegvideo,h264,hevc"
"""FFmpeg demuxers that may open untrusted files: formats that cannot refer to other files."""

MAX_PIXELS = 8192 * 8192
"""Larger frames are refused: a file of a hundred bytes can declare frames of gigabytes."""

_UNEVEN = 0.1
"""Largest deviation of a timestamp at a constant rate, as a fraction of the frame interval."""

_MAX_STRETCH = 4
"""Largest plausible pixel aspect ratio; pixels that declare a more extreme one are taken as square."""

_COLOR_RANGES = {1: "limited", 2: "full"}


@dataclass
class PacketIndex:
    """Frames of one stream in presentation order, according to its packets."""

    num_frames: int = 0
    pts: list[int] = field(default_factory=list)
    """Presentation times in the stream's time base; [] unless every packet has a distinct one."""
    num_keys: int = 0
    """Number of key frames; 0 with intra refresh, or if the first packets are damaged."""
    key_pts: list[int] = field(default_factory=list)
    """Sorted times of the key frames, including hidden ones."""
    exact_seek: bool = False
    """Whether every key frame decodes on its own and no later packet is displayed before it."""
    last_duration: int = 0


def probe(uri: str, max_file_bytes: int = MAX_FILE_BYTES) -> VideoInfo:
    """Read all packets of a video and decode its first picture, the only place that holds the rotation.

    Args:
        uri: the video, local or remote.
        max_file_bytes: larger remote files are refused.

    Raises:
        VideoError: not a video, or it has no frames.
    """
    with local_file(uri, max_file_bytes) as path, open_container(path) as container:
        stream = video_stream(container)
        if stream.width * stream.height > MAX_PIXELS:
            raise VideoError(
                f"its frames of {stream.width} x {stream.height} pixels are larger than the {MAX_PIXELS} pixels "
                f"that are decoded"
            )
        index = index_packets(container, stream)
        if not (index.num_frames and stream.width and stream.height):
            raise VideoError(f"it holds no frames ({index.num_frames} frames, {stream.width} x {stream.height})")
        return _describe(container, stream, index, _first_rotation(container, stream))


def open_container(path: str) -> "av.container.InputContainer":
    """Open a local file with PyAV.

    Raises:
        VideoError: not a supported video format.
    """
    import av

    if os.path.isfile(path) and not os.path.getsize(path):  # noqa: PTH113, PTH202 - /proc/self/fd/N is no ordinary path
        raise VideoError("it is not a readable video (it is empty)")
    try:
        return av.open(
            path, metadata_errors="replace", options={"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"it is not a readable video ({reason_of(error)})") from error


def video_stream(container: "av.container.InputContainer") -> "av.video.stream.VideoStream":
    """Return the default video stream; the cover image of an audio file does not count.

    Raises:
        VideoError: there is none, or no decoder is available for it.
    """
    import av.stream

    stream = cast("av.video.stream.VideoStream | None", container.streams.best("video"))
    if stream is None or stream.disposition & av.stream.Disposition.attached_pic:
        raise VideoError("it has no video stream")
    # Without a decoder there is no codec context.
    if stream.codec_context is None:
        raise VideoError("no decoder is installed for its video stream")
    if not stream.codec_context.is_open:
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        # One thread: the caller runs one decoder per core.
        stream.thread_count = 1
    return stream


def packets_of(
    container: "av.container.InputContainer", stream: "av.video.stream.VideoStream"
) -> Iterator["av.packet.Packet[av.video.stream.VideoStream]"]:
    """Yield a stream's packets in decoding order, up to the end of the file or the point where it is truncated."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, OSError):
            # The file is truncated here; all earlier packets are intact.
            return
        if packet is None:
            return
        # Empty packets flush PyAV's decoders and carry no frame.
        if packet.size:
            yield packet


def index_packets(container: "av.container.InputContainer", stream: "av.video.stream.VideoStream") -> PacketIndex:
    """Count and order the frames of a stream without decoding them."""
    index = PacketIndex(exact_seek=True)
    codec, header = stream.codec_context.codec.canonical_name, stream.codec_context.extradata or b""
    times: list[int | None] = []
    for packet in packets_of(container, stream):
        time = packet.pts if packet.pts is not None or stream.codec_context.has_b_frames else packet.dts
        if packet.is_keyframe:
            if not index.num_keys:
                # Packets before the first key frame cannot be decoded.
                times.clear()
            index.num_keys += 1
            if time is not None:
                index.key_pts.append(time)
            index.exact_seek &= is_clean_entry(codec, header, packet)
        # Edit lists discard packets from display, and partial packets yield no frame.
        if packet.is_discard or packet.is_corrupt or is_hidden(codec, packet):
            continue
        if time is not None and index.key_pts and time < index.key_pts[-1]:
            index.exact_seek = False
            # It refers to pictures before the start of the file.
            if time < index.key_pts[0]:
                continue
        times.append(time)
        index.last_duration = packet.duration or index.last_duration
    index.num_frames = len(times)
    known = [time for time in times if time is not None]
    if len(set(known)) == len(times):
        index.pts = sorted(known)
        index.key_pts.sort()
    else:
        index.key_pts, index.exact_seek = [], False
    return index


def _first_rotation(container: "av.container.InputContainer", stream: "av.video.stream.VideoStream") -> int:
    """Return the clockwise rotation of the first picture; 0 if there is none."""
    import av

    try:
        container.seek(0, stream=stream, backward=True, any_frame=False)
        packet = next((packet for packet in packets_of(container, stream) if packet.is_keyframe), None)
        frames = [*(packet.decode() if packet else []), *stream.codec_context.decode(None)]
    except (av.FFmpegError, OSError, EOFError, ValueError):
        return 0
    return clockwise(frames[0].rotation) if frames else 0


def clockwise(rotation: float) -> int:
    """Convert FFmpeg's counter-clockwise angle to 0, 90, 180 or 270 degrees clockwise."""
    return round(-rotation / 90) * 90 % 360


def _describe(
    container: "av.container.InputContainer", stream: "av.video.stream.VideoStream", index: PacketIndex, rotation: int
) -> VideoInfo:
    fps, duration_s, timestamps = _timing(stream, index)
    context = stream.codec_context
    width, height = (stream.height, stream.width) if rotation % 180 else (stream.width, stream.height)
    pixel_format = context.pix_fmt or ""
    color_range = "full" if pixel_format.startswith("yuvj") else _COLOR_RANGES.get(int(context.color_range), "")
    return VideoInfo(
        num_frames=index.num_frames,
        fps=fps,
        width=width,
        height=height,
        duration_s=duration_s,
        variable_fps=bool(timestamps),
        rotation=rotation,
        sample_aspect_ratio=_stretch(stream, rotation),
        container=_container_name(container),
        codec=context.codec.canonical_name,
        pixel_format=pixel_format,
        color_range=color_range,
        has_audio=bool(container.streams.audio),
        timestamps=timestamps,
        num_video_streams=len(container.streams.video),
        exact_seek=index.exact_seek and index.num_keys > 0,
    )


def _stretch(stream: "av.video.stream.VideoStream", rotation: int) -> float:
    """Return the displayed width of a pixel over its height."""
    declared = float(stream.sample_aspect_ratio or 1)
    if not 1 / _MAX_STRETCH <= declared <= _MAX_STRETCH:
        return 1.0
    return 1 / declared if rotation % 180 else declared


def _container_name(container: "av.container.InputContainer") -> str:
    """Return one name from FFmpeg's list of the formats that a demuxer reads."""
    names = container.format.name.split(",")
    return next((name for name in ("mp4", "matroska") if name in names), names[0])


def _timing(stream: "av.video.stream.VideoStream", index: PacketIndex) -> tuple[float, float, tuple[float, ...]]:
    """Return frames per second, duration in seconds, and the timestamps if they are unevenly spaced."""
    nominal = float(stream.average_rate or stream.guessed_rate or 0)
    tick = float(stream.time_base or 0)
    shown = [(time - index.pts[0]) * tick for time in index.pts]
    if len(shown) < 2 or not shown[-1] > 0:
        fps = nominal or 1.0 / (index.last_duration * tick or 1.0)
        return fps, index.num_frames / fps, ()
    fps = (len(shown) - 1) / shown[-1]
    # The header's rate is exact (30000/1001); it is used if the packet times, rounded to container ticks, confirm it.
    if nominal and abs(nominal / fps - 1) * (len(shown) - 1) < max(_UNEVEN, tick * fps):
        fps = nominal
    tolerance = max(_UNEVEN / fps, 1.01 * tick)
    if all(math.isclose(time, number / fps, abs_tol=tolerance) for number, time in enumerate(shown)):
        return fps, len(shown) / fps, ()
    return fps, shown[-1] + (index.last_duration * tick or 1 / fps), tuple(round(time, 9) for time in shown)
