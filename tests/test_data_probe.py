"""Probing: what is really in a file, against files that were made with known content."""

import dataclasses
import json

import av
import pytest

from tests._videos import FPS, KINDS, VFR_TICKS, make
from videogen import storage
from videogen.data.video import MAX_PIXELS, VideoError, VideoInfo, probe

GOOD = [name for name, kind in KINDS.items() if kind.good]
NOT_EVEN_OPENED = [
    "zero_bytes",
    "text",
    "random",
    "picture",
    "sound_only",
    "cover_only",
    "no_index",
    "index_only",
    "playlist",
    "concat",
    "huge_frames",
]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")

    def path_of(name: str) -> str:
        path = folder / f"{name}{KINDS[name].suffix}"
        if not path.exists():
            make(name, path)
        return str(path)

    return path_of


@pytest.mark.parametrize("name", GOOD)
def test_frames_are_counted_and_the_picture_is_as_displayed(name, video):
    info, kind = probe(video(name)), KINDS[name]
    assert (info.num_frames, info.width, info.height) == (kind.num_frames, kind.width, kind.height)
    assert info.duration_s > 0
    assert info.fps > 0


@pytest.mark.parametrize("name", NOT_EVEN_OPENED)
def test_what_is_no_video_is_an_error_in_words(name, video):
    with pytest.raises(VideoError) as caught:
        probe(video(name))
    assert name not in str(caught.value)  # whoever asks knows which file it is
    assert "/" not in str(caught.value)


def test_every_bad_kind_is_refused_here_or_when_it_is_read():
    bad = {name for name, kind in KINDS.items() if not kind.good}
    assert bad - set(NOT_EVEN_OPENED) == {"overwritten", "one_damaged", "memory_bomb", "endless", "fifo"}


def test_headers_are_not_believed(video):
    path = video("over_reported")
    with av.open(path) as container:
        assert container.streams.video[0].frames == 24
    assert probe(path).num_frames == 12


@pytest.mark.parametrize("name", ["vfr_mp4", "vfr_mkv", "vfr_gif"])
def test_a_variable_rate_is_noticed_and_every_time_is_exact(name, video):
    info = probe(video(name))
    assert info.variable_fps
    assert info.timestamps == pytest.approx([tick / 25 for tick in VFR_TICKS], abs=1e-6)
    assert info.fps == pytest.approx(23 / 2.48)
    assert info.duration_s == pytest.approx(2.52, abs=0.011)


@pytest.mark.parametrize("name", ["h264", "h264_b_frames", "h264_mkv", "h264_ts", "mjpeg", "gif", "late_start", "av1"])
def test_a_constant_rate_survives_the_rounding_of_containers(name, video):
    info = probe(video(name))
    assert (info.variable_fps, info.timestamps) == (False, ())
    assert info.fps == pytest.approx(FPS, rel=2e-3)
    assert info.duration_s == pytest.approx(2.0, rel=2e-3)


def test_a_broadcast_rate_stays_exact(camera_clip):
    info = probe(str(camera_clip))
    assert (info.num_frames, info.fps) == (120, 30000 / 1001)
    assert not info.variable_fps


@pytest.mark.parametrize(("name", "rotation"), [("rotated_90", 90), ("rotated_180", 180), ("rotated_270", 270)])
def test_rotation_is_clockwise(name, rotation, video):
    assert probe(video(name)).rotation == rotation


@pytest.mark.parametrize(
    ("name", "ratio", "display_width"), [("h264", 1, 96), ("anamorphic", 2, 192), ("anamorphic_turned", 0.5, 48)]
)
def test_pixels_that_are_not_square_are_seen(name, ratio, display_width, video):
    info = probe(video(name))
    assert (info.width, info.height) == (96, 64)
    assert (info.sample_aspect_ratio, info.display_width) == (ratio, display_width)


@pytest.mark.parametrize(
    ("name", "container", "codec", "pixel_format", "color_range"),
    [
        ("h264", "mp4", "h264", "yuv420p", ""),
        ("bt709", "mp4", "h264", "yuv420p", "limited"),
        ("full_range_flag", "mp4", "h264", "yuvj420p", "full"),
        ("hevc_10bit", "mp4", "hevc", "yuv420p10le", "limited"),
        ("vp8", "matroska", "vp8", "yuv420p", "limited"),
        ("av1", "mp4", "av1", "yuv420p", "limited"),
        ("mjpeg", "avi", "mjpeg", "yuvj420p", "full"),
        ("gif", "gif", "gif", "bgra", ""),
        ("mpeg2", "mpeg", "mpeg2video", "yuv420p", "limited"),
    ],
)
def test_container_codec_and_colour_are_named(name, container, codec, pixel_format, color_range, video):
    info = probe(video(name))
    found = (info.container, info.codec, info.pixel_format, info.color_range)
    assert found == (container, codec, pixel_format, color_range)


def test_sound_and_other_streams_are_noticed(video):
    assert probe(video("with_sound")).has_audio
    assert not probe(video("h264")).has_audio
    assert probe(video("two_videos")).num_video_streams == 2


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("h264", True),
        ("h264_b_frames", True),
        ("h264_open_gop", False),
        ("hevc_b_frames", False),
        ("intra_refresh", False),
        ("vp9", True),
    ],
)
def test_pictures_that_refer_across_key_frames_are_noticed(name, exact, video):
    assert probe(video(name)).exact_seek is exact


def test_remote_videos_are_probed_alike_and_large_ones_are_not_fetched(video, s3):
    path = video("h264_b_frames")
    storage.upload(path, f"{s3}/video.mp4")
    assert probe(f"{s3}/video.mp4") == probe(path)
    with pytest.raises(VideoError, match=r"bytes, more than the 1000 that are fetched"):
        probe(f"{s3}/video.mp4", max_file_bytes=1000)
    with pytest.raises(VideoError, match="cannot be fetched"):
        probe(f"{s3}/missing.mp4")


def test_a_playlist_does_not_make_us_open_what_it_names(tmp_path, video):
    # Were it followed, the good video that it names would be read.
    path = tmp_path / "list.mp4"
    path.write_text(f"ffconcat version 1.0\nfile {video('h264')}\n")
    with pytest.raises(VideoError, match="not a readable video"):
        probe(str(path))


def test_sizes_are_limited_before_anything_is_decoded(video):
    with pytest.raises(VideoError, match=f"16000 x 16000 pixels are larger than the {MAX_PIXELS} pixels"):
        probe(video("huge_frames"))


def test_infos_are_built_from_four_numbers_and_travel_as_json(video):
    assert VideoInfo(15, 16.0, 64, 64).timestamps == ()
    info = probe(video("vfr_mp4"))
    fields = json.loads(json.dumps(dataclasses.asdict(info)))
    assert VideoInfo(**{**fields, "timestamps": tuple(fields["timestamps"])}) == info
