"""Complete videos, each with one unusual property."""

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests._videos.making import (
    BT709,
    FPS,
    FULL,
    GOP,
    HEIGHT,
    NUM_FRAMES,
    VFR_TICKS,
    WIDTH,
    X264,
    encode,
    good_kind,
    picture,
    pictures,
)

# --- ordinary and less ordinary codecs --------------------------------------------------------------------------

_CODECS: dict[str, tuple[str, str, str, dict[str, str], str]] = {
    # kind: suffix, encoder, pixel format, options, why
    "h264": (".mp4", "libx264", "yuv420p", {**X264, **GOP}, "what most videos are"),
    "h264_b_frames": (".mp4", "libx264", "yuv420p", {**X264, "g": "12", "bf": "3"}, "frames sent out of order"),
    "h264_open_gop": (
        ".mp4",
        "libx264",
        "yuv420p",
        {**X264, "x264-params": "keyint=8:min-keyint=8:bframes=3:b-adapt=0:open-gop=1:scenecut=0"},
        "groups of pictures that refer across their borders",
    ),
    "h264_one_key": (".mp4", "libx264", "yuv420p", {**X264, "g": "500", "bf": "2"}, "no key frame but the first"),
    "h264_mkv": (".mkv", "libx264", "yuv420p", {**X264, "g": "8", "bf": "2"}, "times rounded to milliseconds"),
    "h264_ts": (".ts", "libx264", "yuv420p", {**X264, "g": "8", "bf": "2"}, "no index, no frame count"),
    "h264_avi": (".avi", "libx264", "yuv420p", {**X264, **GOP}, "no presentation times"),
    "h264_10bit": (".mp4", "libx264", "yuv420p10le", {**X264, **GOP}, "10 bit"),
    "h264_422": (".mp4", "libx264", "yuv422p", {**X264, **GOP}, "4:2:2"),
    "h264_444": (".mp4", "libx264", "yuv444p", {**X264, **GOP}, "4:4:4"),
    "hevc": (".mp4", "libx265", "yuv420p", {"crf": "14", "x265-params": "log-level=none:keyint=8:bframes=0"}, "HEVC"),
    "hevc_b_frames": (
        ".mp4",
        "libx265",
        "yuv420p",
        {"crf": "14", "x265-params": "log-level=none:keyint=8:bframes=3"},
        "HEVC with open groups of pictures",
    ),
    "hevc_10bit": (
        ".mp4",
        "libx265",
        "yuv420p10le",
        {"crf": "14", "x265-params": "log-level=none:keyint=8"},
        "what phones film today",
    ),
    "vp9": (".webm", "libvpx-vp9", "yuv420p", {"crf": "14", "b": "0", "g": "8"}, "hidden frames within packets"),
    "av1": (".mp4", "libsvtav1", "yuv420p", {"preset": "10", "crf": "14", "g": "8"}, "AV1"),
    "av1_10bit": (".mkv", "libsvtav1", "yuv420p10le", {"preset": "10", "crf": "14", "g": "8"}, "AV1, 10 bit"),
    "mjpeg": (".avi", "mjpeg", "yuvj420p", {"q:v": "3"}, "old cameras"),
    "mpeg4": (".avi", "mpeg4", "yuv420p", {"q:v": "2", "g": "8"}, "DivX"),
    "mpeg4_b_frames": (".avi", "mpeg4", "yuv420p", {"q:v": "2", "g": "8", "bf": "2"}, "out of order, without times"),
    "msmpeg4": (".avi", "msmpeg4v2", "yuv420p", {"q:v": "2", "g": "8"}, "older than MPEG-4"),
    "mpeg2": (".mpg", "mpeg2video", "yuv420p", {"q:v": "2", "g": "8", "bf": "2"}, "a program stream"),
    "prores": (".mov", "prores_ks", "yuv422p10le", {}, "from editing rooms"),
    "ffv1": (".mkv", "ffv1", "yuv444p", {}, "from archives"),
    "flv": (".flv", "flv", "yuv420p", {"q:v": "2", "g": "8"}, "from the Flash age"),
    "gif": (".gif", "gif", "rgb8", {}, "a palette"),
}


def _add_codecs() -> None:
    for name, (suffix, codec, pixel_format, options, why) in _CODECS.items():

        def write(
            path: Path, seed: int, codec: str = codec, form: str = pixel_format, options: dict[str, str] = options
        ) -> None:
            base = Fraction(1, 25) if codec in ("mpeg2video",) else Fraction(1, FPS)
            encode(path, pictures(seed=seed), codec, form, options=options, time_base=base)

        good_kind(name, why, suffix=suffix)(write)


_add_codecs()


# --- colour ----------------------------------------------------------------------------------------------------------


@good_kind("full_range", "luma from 0 to 255")
def _full_range(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), pixel_format="yuvj420p", options=X264 | GOP, color_range=FULL)


@good_kind("full_range_flag", "luma from 0 to 255, said by a flag only")
def _full_range_flag(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), options=X264 | GOP, color_range=FULL)


@good_kind("bt709", "the colours of HD, luma from 16 to 235, and both said")
def _bt709(path: Path, seed: int) -> None:
    with_matrix = [av.VideoFrame.from_ndarray(image, format="rgb24") for image in pictures(seed=seed)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=X264 | GOP)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        for frame in with_matrix:
            converted = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
            converted.colorspace = BT709
            container.mux(stream.encode(converted))
        container.mux(stream.encode())


# --- time -----------------------------------------------------------------------------------------------------------


@good_kind("vfr_mp4", "a variable rate")
def _vfr_mp4(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), ticks=VFR_TICKS, time_base=Fraction(1, 25), options=X264 | {"g": "8", "bf": "2"})


@good_kind("vfr_mkv", "a variable rate in milliseconds", suffix=".mkv")
def _vfr_mkv(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), ticks=VFR_TICKS, time_base=Fraction(1, 25), options=X264 | {"g": "8", "bf": "2"})


@good_kind("vfr_gif", "a variable rate in hundredths", suffix=".gif")
def _vfr_gif(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), "gif", "rgb8", ticks=VFR_TICKS, time_base=Fraction(1, 25))


@good_kind("late_start", "the first frame is shown after two seconds", suffix=".mkv")
def _late_start(path: Path, seed: int) -> None:
    ticks = [2 * FPS + number for number in range(NUM_FRAMES)]
    encode(path, pictures(seed=seed), ticks=ticks, options=X264 | {"g": "8", "bf": "2"})


@good_kind("edit_list", "its first five frames are cut away by an edit list", shown=tuple(range(5, NUM_FRAMES)))
def _edit_list(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), options=X264 | {"g": "8", "bf": "0"}, muxer={"use_editlist": "1"})
    data = bytearray(path.read_bytes())
    at = data.index(b"elst")
    _, timescale = _track_times(data)
    movie_scale = struct.unpack(">I", data[data.index(b"mvhd") + 16 : data.index(b"mvhd") + 20])[0]
    kept_s = (NUM_FRAMES - 5) / FPS
    struct.pack_into(">II", data, at + 12, round(kept_s * movie_scale), round(5 / FPS * timescale))
    path.write_bytes(data)


def _track_times(data: bytes | bytearray) -> tuple[int, int]:
    at = data.index(b"mdhd")
    return at, struct.unpack(">I", data[at + 16 : at + 20])[0]


@good_kind("intra_refresh", "refreshed bit by bit, with no key frame but the first", suffix=".mkv")
def _intra_refresh(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), options=X264 | {"x264-params": "intra-refresh=1:keyint=8:bframes=0"})


@good_kind("latin1_title", "a title that is not UTF-8", suffix=".avi")
def _latin1_title(path: Path, seed: int) -> None:
    title = "Cafe au lait, un film de Zoe"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = title
        stream = container.add_stream("mpeg4", rate=FPS, options={"q:v": "2", "g": "8"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for image in pictures(seed=seed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    accents = title.replace("Cafe", "Caf\u00e9").replace("Zoe", "Zo\u00eb").encode("latin-1")
    path.write_bytes(path.read_bytes().replace(title.encode(), accents))


@good_kind("one_frame", "a single frame", shown=(0,))
def _one_frame(path: Path, seed: int) -> None:
    encode(path, pictures(1, seed=seed), options=X264)


@good_kind("one_frame_gif", "a single frame, without a rate", suffix=".gif", shown=(0,))
def _one_frame_gif(path: Path, seed: int) -> None:
    encode(path, pictures(1, seed=seed), "gif", "rgb8")


@good_kind("two_frames", "two frames", shown=(0, 1))
def _two_frames(path: Path, seed: int) -> None:
    encode(path, pictures(2, seed=seed), options=X264)


# --- shape ----------------------------------------------------------------------------------------------------------


def _rotated(degrees: int) -> Callable[[Path, int], None]:
    def write(path: Path, seed: int) -> None:
        upright = pictures(seed=seed)
        stored = [np.ascontiguousarray(np.rot90(image, degrees // 90)) for image in upright]
        # FFmpeg counts counter-clockwise.
        encode(path, stored, options=X264 | GOP, setup=lambda stream: stream.set_display_rotation(-degrees))

    return write


for _degrees in (90, 180, 270):
    good_kind(f"rotated_{_degrees}", f"stored turned, to be shown {_degrees} degrees clockwise")(_rotated(_degrees))


@good_kind("anamorphic", "pixels to be shown twice as wide as high")
def _anamorphic(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), options=X264 | GOP, setup=_stretch)


@good_kind("anamorphic_turned", "pixels to be shown twice as wide as high, and the picture then turned")
def _anamorphic_turned(path: Path, seed: int) -> None:
    def setup(stream: Any) -> None:
        _stretch(stream)
        stream.set_display_rotation(-90)

    stored = [np.ascontiguousarray(np.rot90(image)) for image in pictures(seed=seed)]
    encode(path, stored, options=X264 | GOP, setup=setup)


def _stretch(stream: Any) -> None:
    stream.codec_context.sample_aspect_ratio = Fraction(2, 1)


@good_kind("odd_size", "odd sides", suffix=".webm", width=95, height=63)
def _odd_size(path: Path, seed: int) -> None:
    encode(path, pictures(width=95, height=63, seed=seed), "libvpx-vp9", options={"crf": "14", "b": "0"})


@good_kind("odd_size_h264", "odd sides, by cropping", width=95, height=63)
def _odd_h264(path: Path, seed: int) -> None:
    encode(path, pictures(width=95, height=63, seed=seed), pixel_format="yuv444p", options=X264)


_ALL_BUT_ONE = tuple(number for number in range(NUM_FRAMES) if number != 10)


@good_kind("changes_size", "the picture becomes smaller where a frame is lost", suffix=".ts", shown=_ALL_BUT_ONE)
def _changes_size(path: Path, seed: int) -> None:
    parts = []
    for start, width, height in ((0, WIDTH, HEIGHT), (12, WIDTH // 2, HEIGHT // 2)):
        part = path.with_name(f"{path.name}.{start}.ts")
        frames = [picture(number, width, height, seed) for number in range(start, start + 12)]
        encode(part, frames, options=X264 | GOP, ticks=list(range(start, start + 12)))
        parts.append(part.read_bytes())
        part.unlink()
    path.write_bytes(b"".join(parts))


@good_kind("vp8", "hidden frames in packets of their own", suffix=".webm")
def _vp8(path: Path, seed: int) -> None:
    shown = path.with_name(f"{path.name}.shown.webm")
    encode(shown, pictures(seed=seed), "libvpx", options={"b": "2M", "g": "8", "auto-alt-ref": "0"})
    with av.open(str(shown)) as source, av.open(str(path), "w", format="webm") as container:
        video = source.streams.video[0]
        stream = container.add_stream_from_template(video)
        for packet in source.demux(video):
            if not packet.size:
                continue
            data = bytes(packet)
            if packet.is_keyframe and packet.pts:
                # The same key frame, hidden, before it is shown: harmless to decode, wrong to count.
                hidden = av.Packet(bytes([data[0] & ~0x10]) + data[1:])
                hidden.pts = hidden.dts = packet.pts - 10
                hidden.time_base, hidden.stream, hidden.is_keyframe = packet.time_base, stream, True
                container.mux(hidden)
            packet.stream = stream
            container.mux(packet)
    shown.unlink()


@good_kind("fragmented", "an mp4 in pieces, as streaming services send it")
def _fragmented(path: Path, seed: int) -> None:
    flags = {"movflags": "+frag_keyframe+empty_moov+default_base_moof"}
    encode(path, pictures(seed=seed), options=X264 | {"g": "8", "bf": "2"}, muxer=flags)


@good_kind("mkv_live", "a recording without an index", suffix=".mkv")
def _mkv_live(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), options=X264 | {"g": "8", "bf": "2"}, muxer={"live": "1"})


@good_kind("two_videos", "a second film, of finer pictures, behind the one that players show")
def _two_videos(path: Path, seed: int) -> None:
    with av.open(str(path), "w") as container:
        streams = []
        for width, height in ((WIDTH, HEIGHT), (2 * WIDTH, 2 * HEIGHT)):
            stream = container.add_stream("libx264", rate=FPS, options=X264 | GOP)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            streams.append(stream)
        for number in range(NUM_FRAMES):
            for stream, reverse in zip(streams, (False, True), strict=True):
                image = picture(NUM_FRAMES - number if reverse else number, stream.width, stream.height, seed)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode())


@good_kind("with_sound", "a sound track beside it")
def _with_sound(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), options=X264 | GOP, audio="aac")
