"""Strange videos, made on the spot: one function a kind, each good or bad for a known reason.

    make("h264_b_frames", path, seed=0)     # writes the file
    KINDS["h264_b_frames"].good             # whether the platform must read it, and .why
    number_in(frame)                        # which frame a decoded picture is

Every picture carries its number as eight black or white bands, so that tests name the exact frame whatever the codec,
colour range or size did to it. `seed` changes the rest of the picture.
"""

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

os.environ.setdefault("SVT_LOG", "1")  # errors only: the AV1 encoder introduces itself at each video

WIDTH, HEIGHT, NUM_FRAMES, FPS = 96, 64, 24, 12
FULL, BT709 = 2, 1
VFR_TICKS = [0, 1, 2, 3, 4, 5, 10, 15, 20, 25, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 50, 60, 61, 62]
"""When the frames of videos of variable rate are shown, in 1/25 s."""

Frames = list[np.ndarray]


@dataclass(frozen=True)
class Kind:
    """One kind of file."""

    write: Callable[[Path, int], None]
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
        """How many frames a probe must count."""
        return len(self.shown)


KINDS: dict[str, Kind] = {}


def make(kind: str, path: Path, seed: int = 0) -> None:
    """Write a file of this kind."""
    KINDS[kind].write(Path(path), seed)


def picture(number: int, width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> np.ndarray:
    """Return frame `number` as it is displayed: its bits above, a moving square on a gradient below."""
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
    """Encode frames; `ticks` are their times in units of `time_base`, `color_range` is 0 (not said) or FULL."""
    with av.open(str(path), "w", options=muxer or {}, format=container_format) as container:
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
            _add_sound(container, sound)


def _add_sound(container: Any, stream: Any, seconds: int = 2) -> None:
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


def _good(name: str, why: str, **facts: Any) -> Callable[[Callable[[Path, int], None]], Callable[[Path, int], None]]:
    return _kind(name, True, why, **facts)


def _bad(name: str, why: str, **facts: Any) -> Callable[[Callable[[Path, int], None]], Callable[[Path, int], None]]:
    return _kind(name, False, why, **{"shown": (), **facts})


def _kind(name: str, good: bool, why: str, **facts: Any) -> Any:
    def add(write: Callable[[Path, int], None]) -> Callable[[Path, int], None]:
        KINDS[name] = Kind(write, good, why, **facts)
        return write

    return add


# --- ordinary and less ordinary codecs --------------------------------------------------------------------------

_GOP = {"g": "8", "bf": "0"}
_X264 = {"preset": "fast", "crf": "14"}
_CODECS: dict[str, tuple[str, str, str, dict[str, str], str]] = {
    # kind: suffix, encoder, pixel format, options, why
    "h264": (".mp4", "libx264", "yuv420p", {**_X264, **_GOP}, "what most videos are"),
    "h264_b_frames": (".mp4", "libx264", "yuv420p", {**_X264, "g": "12", "bf": "3"}, "frames sent out of order"),
    "h264_open_gop": (
        ".mp4",
        "libx264",
        "yuv420p",
        {**_X264, "x264-params": "keyint=8:min-keyint=8:bframes=3:b-adapt=0:open-gop=1:scenecut=0"},
        "groups of pictures that refer across their borders",
    ),
    "h264_one_key": (".mp4", "libx264", "yuv420p", {**_X264, "g": "500", "bf": "2"}, "no key frame but the first"),
    "h264_mkv": (".mkv", "libx264", "yuv420p", {**_X264, "g": "8", "bf": "2"}, "times rounded to milliseconds"),
    "h264_ts": (".ts", "libx264", "yuv420p", {**_X264, "g": "8", "bf": "2"}, "no index, no frame count"),
    "h264_avi": (".avi", "libx264", "yuv420p", {**_X264, **_GOP}, "no presentation times"),
    "h264_10bit": (".mp4", "libx264", "yuv420p10le", {**_X264, **_GOP}, "10 bit"),
    "h264_422": (".mp4", "libx264", "yuv422p", {**_X264, **_GOP}, "4:2:2"),
    "h264_444": (".mp4", "libx264", "yuv444p", {**_X264, **_GOP}, "4:4:4"),
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

        _good(name, why, suffix=suffix)(write)


_add_codecs()


# --- colour ----------------------------------------------------------------------------------------------------------


@_good("full_range", "luma from 0 to 255")
def _full_range(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), pixel_format="yuvj420p", options=_X264 | _GOP, color_range=FULL)


@_good("full_range_flag", "luma from 0 to 255, said by a flag only")
def _full_range_flag(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), options=_X264 | _GOP, color_range=FULL)


@_good("bt709", "the colours of HD, luma from 16 to 235, and both said")
def _bt709(path: Path, seed: int) -> None:
    with_matrix = [av.VideoFrame.from_ndarray(image, format="rgb24") for image in pictures(seed=seed)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=_X264 | _GOP)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        for frame in with_matrix:
            converted = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
            converted.colorspace = BT709
            container.mux(stream.encode(converted))
        container.mux(stream.encode())


# --- time -----------------------------------------------------------------------------------------------------------


@_good("vfr_mp4", "a variable rate")
def _vfr_mp4(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), ticks=VFR_TICKS, time_base=Fraction(1, 25), options=_X264 | {"g": "8", "bf": "2"})


@_good("vfr_mkv", "a variable rate in milliseconds", suffix=".mkv")
def _vfr_mkv(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), ticks=VFR_TICKS, time_base=Fraction(1, 25), options=_X264 | {"g": "8", "bf": "2"})


@_good("vfr_gif", "a variable rate in hundredths", suffix=".gif")
def _vfr_gif(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), "gif", "rgb8", ticks=VFR_TICKS, time_base=Fraction(1, 25))


@_good("late_start", "the first frame is shown after two seconds", suffix=".mkv")
def _late_start(path: Path, seed: int) -> None:
    ticks = [2 * FPS + number for number in range(NUM_FRAMES)]
    encode(path, pictures(seed=seed), ticks=ticks, options=_X264 | {"g": "8", "bf": "2"})


@_good("edit_list", "its first five frames are cut away by an edit list", shown=tuple(range(5, NUM_FRAMES)))
def _edit_list(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), options=_X264 | {"g": "8", "bf": "0"}, muxer={"use_editlist": "1"})
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


@_good("intra_refresh", "refreshed bit by bit, with no key frame but the first", suffix=".mkv")
def _intra_refresh(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), options=_X264 | {"x264-params": "intra-refresh=1:keyint=8:bframes=0"})


@_good("latin1_title", "a title that is not UTF-8", suffix=".avi")
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


@_good("one_frame", "a single frame", shown=(0,))
def _one_frame(path: Path, seed: int) -> None:
    encode(path, pictures(1, seed=seed), options=_X264)


@_good("one_frame_gif", "a single frame, without a rate", suffix=".gif", shown=(0,))
def _one_frame_gif(path: Path, seed: int) -> None:
    encode(path, pictures(1, seed=seed), "gif", "rgb8")


@_good("two_frames", "two frames", shown=(0, 1))
def _two_frames(path: Path, seed: int) -> None:
    encode(path, pictures(2, seed=seed), options=_X264)


# --- shape ----------------------------------------------------------------------------------------------------------


def _rotated(degrees: int) -> Callable[[Path, int], None]:
    def write(path: Path, seed: int) -> None:
        upright = pictures(seed=seed)
        stored = [np.ascontiguousarray(np.rot90(image, degrees // 90)) for image in upright]
        # FFmpeg counts counter-clockwise.
        encode(path, stored, options=_X264 | _GOP, setup=lambda stream: stream.set_display_rotation(-degrees))

    return write


for _degrees in (90, 180, 270):
    _good(f"rotated_{_degrees}", f"stored turned, to be shown {_degrees} degrees clockwise")(_rotated(_degrees))


@_good("odd_size", "odd sides", suffix=".webm", width=95, height=63)
def _odd_size(path: Path, seed: int) -> None:
    encode(path, pictures(width=95, height=63, seed=seed), "libvpx-vp9", options={"crf": "14", "b": "0"})


@_good("odd_size_h264", "odd sides, by cropping", width=95, height=63)
def _odd_h264(path: Path, seed: int) -> None:
    encode(path, pictures(width=95, height=63, seed=seed), pixel_format="yuv444p", options=_X264)


_ALL_BUT_ONE = tuple(number for number in range(NUM_FRAMES) if number != 10)


@_good("changes_size", "the picture becomes smaller where a frame is lost", suffix=".ts", shown=_ALL_BUT_ONE)
def _changes_size(path: Path, seed: int) -> None:
    parts = []
    for start, width, height in ((0, WIDTH, HEIGHT), (12, WIDTH // 2, HEIGHT // 2)):
        part = path.with_name(f"{path.name}.{start}.ts")
        frames = [picture(number, width, height, seed) for number in range(start, start + 12)]
        encode(part, frames, options=_X264 | _GOP, ticks=list(range(start, start + 12)))
        parts.append(part.read_bytes())
        part.unlink()
    path.write_bytes(b"".join(parts))


@_good("vp8", "hidden frames in packets of their own", suffix=".webm")
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


@_good("fragmented", "an mp4 in pieces, as streaming services send it")
def _fragmented(path: Path, seed: int) -> None:
    flags = {"movflags": "+frag_keyframe+empty_moov+default_base_moof"}
    encode(path, pictures(seed=seed), options=_X264 | {"g": "8", "bf": "2"}, muxer=flags)


@_good("mkv_live", "a recording without an index", suffix=".mkv")
def _mkv_live(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), options=_X264 | {"g": "8", "bf": "2"}, muxer={"live": "1"})


@_good("two_videos", "a second film, of finer pictures, behind the one that players show")
def _two_videos(path: Path, seed: int) -> None:
    with av.open(str(path), "w") as container:
        streams = []
        for width, height in ((WIDTH, HEIGHT), (2 * WIDTH, 2 * HEIGHT)):
            stream = container.add_stream("libx264", rate=FPS, options=_X264 | _GOP)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            streams.append(stream)
        for number in range(NUM_FRAMES):
            for stream, reverse in zip(streams, (False, True), strict=True):
                image = picture(NUM_FRAMES - number if reverse else number, stream.width, stream.height, seed)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode())


@_good("with_sound", "a sound track beside it")
def _with_sound(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), options=_X264 | _GOP, audio="aac")


# --- what is wrong with it ------------------------------------------------------------------------------------------


@_good("over_reported", "its header names 24 frames, 12 are there", shown=tuple(range(12)))
def _over_reported(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), options=_X264 | _GOP, muxer={"movflags": "+faststart"})
    data = path.read_bytes()
    with av.open(str(path)) as container:
        offsets = sorted(packet.pos for packet in container.demux(video=0) if packet.size)
    path.write_bytes(data[: offsets[12]])


@_good("cut_off", "it ends within a frame, as a broken download does", shown=tuple(range(11)))
def _cut_off(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), options=_X264 | _GOP, muxer={"movflags": "+faststart"})
    data = path.read_bytes()
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    path.write_bytes(data[: packets[11][0] + packets[11][1] // 2])


@_bad("zero_bytes", "nothing in it")
def _zero_bytes(path: Path, seed: int) -> None:
    path.write_bytes(b"")


@_bad("text", "no video at all")
def _text(path: Path, seed: int) -> None:
    path.write_bytes(b"this is no video\n" * (100 + seed))


@_bad("random", "noise")
def _random(path: Path, seed: int) -> None:
    path.write_bytes(np.random.default_rng(seed).bytes(20_000))


@_bad("picture", "a PNG picture")
def _picture(path: Path, seed: int) -> None:
    encode(path, pictures(1, seed=seed), "png", "rgb24", container_format="image2")


@_bad("sound_only", "no video stream")
def _sound_only(path: Path, seed: int) -> None:
    with av.open(str(path), "w") as container:
        _add_sound(container, container.add_stream("aac", rate=16000))


@_bad("cover_only", "sound with a cover picture")
def _cover_only(path: Path, seed: int) -> None:
    cover = path.with_name(f"{path.name}.png")
    encode(cover, pictures(1, seed=seed), "png", "rgb24", container_format="image2")
    with av.open(str(path), "w", format="mp4") as container, av.open(str(cover)) as image:
        sound = container.add_stream("aac", rate=16000)
        source = image.streams.video[0]
        stream = container.add_stream_from_template(source)
        stream.disposition = av.stream.Disposition.attached_pic
        for packet in image.demux(source):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
        _add_sound(container, sound)
    cover.unlink()


@_bad("no_index", "its end, with the index, is missing")
def _no_index(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), options=_X264 | _GOP)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])


@_bad("index_only", "an index without the frames")
def _index_only(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), options=_X264 | _GOP, muxer={"movflags": "+faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 4])


@_bad("overwritten", "noise where frames were", shown=tuple(range(NUM_FRAMES)))
def _overwritten(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), options=_X264 | _GOP, muxer={"movflags": "+faststart"})
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    middle = slice(start + (len(data) - start) // 4, start + (len(data) - start) * 3 // 4)
    data[middle] = np.random.default_rng(seed).bytes(middle.stop - middle.start)
    path.write_bytes(data)


@_bad("one_damaged", "noise in one of its frames", shown=tuple(range(NUM_FRAMES)))
def _one_damaged(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), options=_X264 | _GOP, muxer={"movflags": "+faststart"})
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    start, size = packets[10]
    # Its length and its first bytes stay, so that it is recognised as a frame.
    data[start + 24 : start + size] = np.random.default_rng(seed).bytes(size - 24)
    path.write_bytes(data)


@_bad("playlist", "a list of other files, which a stranger must not make us open", suffix=".mp4")
def _playlist(path: Path, seed: int) -> None:
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n")


@_bad("concat", "a list of other files, in another format")
def _concat(path: Path, seed: int) -> None:
    path.write_text("ffconcat version 1.0\nfile /etc/hostname\n")


@_bad("huge_frames", "fewer than 100 bytes that claim 16000 x 16000 pixels", suffix=".gif")
def _huge_frames(path: Path, seed: int) -> None:
    path.write_bytes(gif(16000, 16000, 2))


@_bad("memory_bomb", "frames of 256 MB each, more than a small child may hold", suffix=".gif", shown=(0,) * 500)
def _memory_bomb(path: Path, seed: int) -> None:
    path.write_bytes(gif(8000, 8000, 500))


@_bad("endless", "a small file of 20,000 large frames: hours of decoding", suffix=".gif", shown=(0,) * 20_000)
def _endless(path: Path, seed: int) -> None:
    path.write_bytes(gif(4000, 4000, 20_000))


@_bad("fifo", "a pipe into which nobody writes: opening it never returns", hangs=True)
def _fifo(path: Path, seed: int) -> None:
    os.mkfifo(path)


def gif(width: int, height: int, count: int) -> bytes:
    """Return a GIF of large frames, of which each says only one pixel: 35 bytes a frame."""
    header = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes([0, 0, 0, 255, 255, 255])
    control = b"\x21\xf9\x04\x04\x0a\x00\x00\x00"
    image = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return header + (control + image) * count + b"\x3b"
