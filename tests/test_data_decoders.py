"""Decoders: the same frame for the same number, whichever reads, and what each is not trusted with."""

import os
from typing import Any

import numpy as np
import pytest

from tests._videos import KINDS, VFR_TICKS, make, number_in, picture
from videogen.data.video import VideoError, VideoInfo, decoder_versions, open_video, probe
from videogen.data.video.decoders import DECODERS, frames_at_once
from videogen.errors import UserError

GOOD = [name for name, kind in KINDS.items() if kind.good]

TRUSTED = [
    "h264",
    "h264_b_frames",
    "h264_one_key",
    "h264_mkv",
    "hevc",
    "vp9",
    "full_range",
    "full_range_flag",
    "bt709",
    "vfr_mp4",
    "vfr_mkv",
    "late_start",
    "one_frame",
    "two_frames",
    "fragmented",
    "with_sound",
    "over_reported",
    "anamorphic",
]
"""Kinds that decord reads, each frame equal to PyAV's."""

DOUBTED = {
    "h264_ts": "container mpegts",
    "h264_avi": "container avi",
    "mjpeg": "container avi",
    "mpeg2": "container mpeg",
    "gif": "container gif",
    "av1": "codec av1",
    "vp8": "codec vp8",
    "prores": "codec prores",
    "h264_10bit": "pixel format yuv420p10le",
    "h264_444": "pixel format yuv444p",
    "rotated_90": "rotation by 90 degrees",
    "rotated_180": "rotation by 180 degrees",
    "odd_size": "odd sides",
    "two_videos": "2 video streams",
    "h264_open_gop": "refer across key frames",
    "hevc_b_frames": "refer across key frames",
    "intra_refresh": "refer across key frames",
}
"""Kinds that decord is not asked for, and why."""

WRONG = [
    "h264_open_gop",
    "hevc_b_frames",
    "h264_ts",
    "h264_avi",
    "mpeg2",
    "mpeg4_b_frames",
    "two_videos",
    "intra_refresh",
]
"""Kinds for which decord gives other frames than those asked for, or none."""

FOUND_OUT = ["mkv_live", "edit_list", "cut_off"]
"""Kinds that look trustworthy, and fail when decord opens or reads them."""

ORDER = (17, 3, 3, 9, 22, 0, 23, 5, 8, 7, 12, 11)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")

    def path_of(name: str) -> str:
        path = folder / f"{name}{KINDS[name].suffix}"
        if not path.exists():
            make(name, path)
        return str(path)

    return path_of


def order_for(info: VideoInfo) -> list[int]:
    return [index for index in ORDER if index < info.num_frames]


def read_all(path: str, info: VideoInfo, decoder: str, indices: list[int]) -> tuple[np.ndarray, str]:
    with open_video(path, info, decoder) as opened:
        return np.concatenate(list(opened.read(indices))), opened.decoder


@pytest.mark.parametrize("name", GOOD)
def test_every_frame_is_the_one_asked_for(name, video):
    path, kind = video(name), KINDS[name]
    info = probe(path)
    indices = order_for(info)
    frames, decoder = read_all(path, info, "auto", indices)
    assert frames.dtype == np.uint8
    assert frames.shape[1:] == (kind.height, kind.width, 3)
    assert [number_in(frame) for frame in frames] == [kind.shown[index] for index in indices]
    assert decoder == ("decord" if name in TRUSTED else "pyav")


@pytest.mark.parametrize("name", GOOD)
def test_streams_hold_every_frame_once_in_order(name, video):
    info = probe(video(name))
    with open_video(video(name), info) as opened:
        frames = [(index, number_in(frame)) for index, frame in opened.stream()]
    assert frames == list(enumerate(KINDS[name].shown))


@pytest.mark.parametrize("name", [name for name in GOOD if "gif" not in name and name != "changes_size"])
def test_colours_are_those_that_were_encoded(name, video):
    # A range or a matrix that is mistaken shifts the colours by 8 levels and more on average.
    kind = KINDS[name]
    frames, _ = read_all(video(name), probe(video(name)), "auto", [0])
    expected = picture(kind.shown[0], kind.width, kind.height).astype(int)
    assert np.abs(frames[0] - expected).mean() < 4


@pytest.mark.parametrize("name", TRUSTED)
def test_decord_reads_what_pyav_reads(name, video):
    info = probe(video(name))
    assert DECODERS["decord"].doubts(info) == ""
    decord, _ = read_all(video(name), info, "decord", order_for(info))
    pyav, _ = read_all(video(name), info, "pyav", order_for(info))
    # Equal where both use the same instructions of the processor; a rounding apart where they do not.
    assert np.abs(decord.astype(int) - pyav).max() <= 2


@pytest.mark.parametrize("name", DOUBTED)
def test_decord_is_not_asked_for_what_it_cannot_read(name, video):
    assert DOUBTED[name] in DECODERS["decord"].doubts(probe(video(name)))


@pytest.mark.parametrize("name", WRONG)
def test_doubts_about_decord_are_justified(name, video):
    info = probe(video(name))
    indices = order_for(info)
    try:
        frames, _ = read_all(video(name), info, "decord", indices)
    except VideoError:
        return
    assert [number_in(frame) for frame in frames] != [KINDS[name].shown[index] for index in indices]


@pytest.mark.parametrize("name", FOUND_OUT)
def test_pyav_takes_over_where_decord_fails(name, video):
    info = probe(video(name))
    assert DECODERS["decord"].doubts(info) == ""
    _, decoder = read_all(video(name), info, "auto", order_for(info))
    assert decoder == "pyav"
    with pytest.raises(VideoError):
        read_all(video(name), info, "decord", order_for(info))


def test_pyav_takes_over_in_the_middle_of_a_video(video, tmp_path):
    """Frames that decord has given are neither given again nor lost."""
    path = video("h264")
    with open_video(path, probe(path)) as opened:
        batches = opened.read(range(24))
        first = next(batches)
        assert opened.decoder == "decord"
        current: Any = opened._current
        current._reader = None  # what reads it is gone, as after an error in native code
        current._errors = (AttributeError,)
        rest = np.concatenate(list(batches))
        assert opened.decoder == "pyav"
    assert [number_in(frame) for frame in (*first, *rest)] == list(range(24))


def test_a_frame_at_a_time_of_a_variable_rate_is_the_one_shown_then(video):
    info = probe(video("vfr_mp4"))
    for decoder in ("auto", "pyav"):
        for second in (0.0, 0.2, 0.6, 1.24, 1.56, 2.48):
            index = int(np.abs(np.array(info.timestamps) - second).argmin())
            frames, _ = read_all(video("vfr_mp4"), info, decoder, [index])
            assert VFR_TICKS[number_in(frames[0])] / 25 == pytest.approx(second, abs=1e-6)


def test_damaged_frames_are_never_made_up(video):
    info = probe(video("overwritten"))
    for decoder in ("auto", "decord", "pyav"):
        with pytest.raises(VideoError, match="decode"):
            read_all(video("overwritten"), info, decoder, list(range(info.num_frames)))


def test_decord_does_not_replace_frames_by_others(video):
    # Its default is to give a neighbour instead of a frame that it lost.
    path = video("h264_ts")
    with open_video(path, probe(path), "decord") as opened, pytest.raises(VideoError, match="duplicate"):
        list(opened.stream())


def test_a_decoder_asked_for_by_name_is_not_replaced(video):
    with pytest.raises(VideoError):
        read_all(video("av1"), probe(video("av1")), "decord", [0])
    assert read_all(video("h264"), probe(video("h264")), "pyav", [0])[1] == "pyav"


@pytest.mark.parametrize("decoder", ["auto", "decord", "pyav"])
def test_frames_that_do_not_exist_are_refused(decoder, video):
    info = probe(video("h264"))
    for indices, wrong in (([0, 24], 24), ([-1], -1)):
        with pytest.raises(VideoError, match=f"frame {wrong} was requested from a video of 24"):
            read_all(video("h264"), info, decoder, indices)


def test_unknown_decoders_are_refused_in_one_sentence(video):
    with pytest.raises(UserError, match=r"Decoder 'ffmpeg' does not exist: choose 'auto', 'decord', 'pyav'"):
        open_video(video("h264"), probe(video("h264")), "ffmpeg")


def test_few_huge_frames_are_held_at_once():
    assert frames_at_once(VideoInfo(100, 25.0, 1920, 1080)) == 8
    assert frames_at_once(VideoInfo(100, 25.0, 7680, 4320)) == 5
    assert frames_at_once(VideoInfo(100, 25.0, 8192, 8192)) == 2


def test_versions_say_which_ffmpeg_decodes():
    versions = decoder_versions()
    assert set(versions) - {"torchcodec"} == {"decord", "pyav"}
    assert "libavcodec" in versions["pyav"]


def test_batches_are_small(video):
    with open_video(video("h264"), probe(video("h264"))) as opened:
        assert [len(batch) for batch in opened.read(range(20))] == [8, 8, 4]


def test_torchcodec_reads_what_pyav_reads_or_says_what_it_lacks(video):
    if "torchcodec" not in decoder_versions():
        with pytest.raises(
            UserError, match=r"^Decoder 'torchcodec' cannot be loaded \(.*\): install FFmpeg's"
        ) as caught:
            open_video(video("h264"), probe(video("h264")), "torchcodec")
        assert "\n" not in str(caught.value)
        return
    for name in ("h264_b_frames", "full_range", "rotated_90", "vfr_mp4", "av1", "gif"):
        info = probe(video(name))
        torchcodec, decoder = read_all(video(name), info, "torchcodec", order_for(info))
        pyav, _ = read_all(video(name), info, "pyav", order_for(info))
        assert decoder == "torchcodec"
        assert np.abs(torchcodec.astype(int) - pyav).max() <= 3


def test_making_a_video_leaves_the_priority_of_the_process_alone(tmp_path):
    before = os.sched_getscheduler(0)
    make("av1", tmp_path / "video.mp4")
    assert os.sched_getscheduler(0) == before
