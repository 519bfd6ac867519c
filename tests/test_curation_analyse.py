"""One pass over a video: shots, windows, scores and pictures, in the memory of one window."""

import dataclasses
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests._videos import make
from videogen.data.curation import (
    THUMBNAIL_SIDE,
    AnalyseRequest,
    ShotDetector,
    WindowSpec,
    analyse_request,
    decode_jpegs,
    encode_jpeg,
    shrink,
    thumbnail,
)
from videogen.data.curation.duplicates import perceptual_hash
from videogen.data.curation.scores import SCORES, SHORT_SIDE, ClipFrames
from videogen.data.isolation import IsolatedDecoder
from videogen.data.synthetic import Attributes, all_attributes, render_clip
from videogen.data.video import VideoError, VideoInfo, open_video, probe, write_mp4

BIKES_CUTS = [30, 76, 137, 187, 242]
"""Seen by eye: the frames that start another take."""

CHOICES = {"scores": tuple(SCORES), "phash": True, "thumbnails": True, "num_samples": 2}


@pytest.fixture(scope="session")
def bikes(camera_clip) -> str:
    return str(camera_clip.with_name("bikes.mp4"))


def analysed(source, windows, **choices):
    return analyse_request(AnalyseRequest(str(source), windows, **choices).as_arguments())


def frames_of(path) -> np.ndarray:
    with open_video(str(path), probe(str(path))) as video:
        return np.stack([frame.copy() for _, frame in video.stream()])


def test_shots_of_footage_are_those_that_people_see(bikes):
    header, _ = analysed(bikes, WindowSpec(16, 8.0, split_shots=True))
    assert [start for start, _ in header["shots"][1:]] == BIKES_CUTS
    assert header["shots"][0][0] == 0
    assert header["shots"][-1][1] == header["info"]["num_frames"] == 250
    assert all(end == start for (_, end), (start, _) in zip(header["shots"], header["shots"][1:], strict=False))


@pytest.mark.parametrize("file", ["bigbuckbunny", "carphone_pristine", "carphone_distorted"])
def test_footage_of_one_take_has_no_cut(camera_clip, file):
    header, _ = analysed(camera_clip.with_name(f"{file}.mp4"), WindowSpec(16, 8.0, split_shots=True))
    assert len(header["shots"]) == 1


def test_a_fast_pan_is_no_cut(bikes):
    picture = shrink(frames_of(bikes)[150], 144)
    wide = np.concatenate([picture, picture[:, ::-1]] * 3, axis=1)
    detector = ShotDetector(25.0)
    cuts = [detector.feed(np.ascontiguousarray(wide[:, 20 * number : 20 * number + 256])) for number in range(60)]
    assert set(cuts) == {None}


@pytest.mark.parametrize("spec", [WindowSpec(16, 8.0, split_shots=True), WindowSpec(16, 8.0, 4, split_shots=True)])
def test_clips_found_while_streaming_are_those_planned_from_the_shots(bikes, spec):
    header, _ = analysed(bikes, spec)
    planned = spec.windows(probe(bikes), header["shots"])
    found = [tuple(clip["indices"]) for clip in header["clips"]]
    assert found == [window.indices for window in planned]
    for clip in header["clips"]:
        start, end = header["shots"][clip["shot"]]
        assert start <= clip["indices"][0] <= clip["indices"][-1] < end


@pytest.mark.parametrize("split_shots", [False, True])
def test_scores_are_those_of_the_very_frames(bikes, split_shots):
    header, body = analysed(bikes, WindowSpec(16, 8.0, split_shots=split_shots), **CHOICES)
    frames = frames_of(bikes)
    assert len(header["clips"]) >= 5
    for clip in header["clips"]:
        own = [frames[index] for index in clip["indices"]]
        small = np.stack([shrink(frame, 144) for frame in own])
        expected = ClipFrames(small, clip["fps"])
        assert clip["scores"] == {name: score(expected) for name, score in SCORES.items()}
        assert int(clip["phash"], 16) == perceptual_hash(expected)
        assert len(clip["phash"]) == 16
        offset, length = clip["thumbnail"]
        assert body[offset : offset + length] == thumbnail(list(small))
        first, last = (body[offset : offset + length] for offset, length in clip["samples"])
        # 272 pixels are less than what is asked for: samples are never enlarged.
        assert (first, last) == (encode_jpeg(own[0], 95), encode_jpeg(own[-1], 95))


def test_the_answer_is_json_and_the_same_each_time(bikes):
    header, body = analysed(bikes, WindowSpec(16, 8.0, split_shots=True), **CHOICES)
    again, same = analysed(bikes, WindowSpec(16, 8.0, split_shots=True), **CHOICES)
    assert json.dumps(header) == json.dumps(again)
    assert body == same


def test_options_do_not_change_scores(bikes):
    full, _ = analysed(bikes, WindowSpec(16, 8.0), **CHOICES)
    bare, body = analysed(bikes, WindowSpec(16, 8.0), scores=("sharpness",))
    wanted = [{"sharpness": clip["scores"]["sharpness"]} for clip in full["clips"]]
    assert [clip["scores"] for clip in bare["clips"]] == wanted
    assert body == b""
    assert all(clip["phash"] is None and clip["thumbnail"] is None and clip["samples"] == [] for clip in bare["clips"])


def test_nothing_is_decoded_where_nothing_is_looked_at(tmp_path):
    path = tmp_path / "broken.mp4"
    whole = write_mp4(render_clip(Attributes("red", "circle", "left"), 1, num_frames=48), fps=16)
    start = whole.index(b"mdat") + 8
    # The index stands first and stays; of the pictures, nothing is left.
    path.write_bytes(whole[:start] + bytes(len(whole) - start))
    header, body = analysed(path, WindowSpec(15, 16.0))
    assert [clip["indices"] for clip in header["clips"]] == [list(range(s, s + 15)) for s in (0, 15, 30)]
    assert (header["decoder"], header["shots"], body) == ("", [], b"")
    with pytest.raises(VideoError):
        analysed(path, WindowSpec(15, 16.0), scores=("sharpness",))


def test_pixels_that_are_not_square_are_seen_square(tmp_path):
    make("anamorphic", tmp_path / "wide.mp4")  # 96 x 64 pixels, shown as 192 x 64
    header, body = analysed(tmp_path / "wide.mp4", WindowSpec(8, 8.0), num_samples=1)
    offset, length = header["clips"][0]["samples"][0]
    with Image.open(io.BytesIO(body[offset : offset + length])) as sample:
        assert sample.size == (96, 32)


def test_a_video_too_short_has_no_clip_and_that_is_no_error(tmp_path):
    path = tmp_path / "short.mp4"
    path.write_bytes(write_mp4(render_clip(Attributes("red", "circle", "left"), 1, num_frames=5), fps=16))
    for split_shots in (False, True):
        header, _ = analysed(path, WindowSpec(15, 16.0, split_shots=split_shots), **CHOICES)
        assert header["clips"] == []
        assert header["info"]["num_frames"] == 5


@pytest.mark.slow
def test_frames_are_held_for_one_window_only(bikes):
    frame_bytes = shrink(frames_of(bikes)[0], SHORT_SIDE).nbytes
    choices = CHOICES | {"num_samples": 0}
    # Every second frame of 15, and what the shot detector has not decided yet.
    shots = WindowSpec(8, 12.5, split_shots=True)
    assert analysed(bikes, shots, max_buffer_bytes=(15 + 3) * frame_bytes, **choices)[0]["clips"]
    assert analysed(bikes, WindowSpec(8, 12.5), max_buffer_bytes=8 * frame_bytes, **choices)[0]["clips"]


def test_a_window_that_does_not_fit_in_memory_is_the_videos_error(bikes):
    with pytest.raises(VideoError, match="more than the 8 frames"):
        analysed(bikes, WindowSpec(16, 8.0), max_buffer_bytes=2**20, **CHOICES | {"num_samples": 0})


@pytest.mark.process
def test_the_isolated_decoder_gives_the_same(bikes):
    request = AnalyseRequest(bikes, WindowSpec(16, 8.0, split_shots=True), **CHOICES)
    here, body = analyse_request(request.as_arguments())
    with IsolatedDecoder() as decoder:
        there, same = decoder.call("analyse", request.as_arguments(), 60.0)
    assert there == json.loads(json.dumps(here))
    assert bytes(same) == body


def test_videos_on_s3_are_analysed(s3, tmp_path):
    from videogen import storage

    content = write_mp4(render_clip(all_attributes()[0], 1, num_frames=15), fps=16)
    storage.write_bytes(f"{s3}/clip.mp4", content)
    (tmp_path / "clip.mp4").write_bytes(content)
    windows = WindowSpec(15, 16.0)
    remote, _ = analysed(f"{s3}/clip.mp4", windows, scores=("motion", "sharpness"))
    local, _ = analysed(tmp_path / "clip.mp4", windows, scores=("motion", "sharpness"))
    assert remote == local


def test_unknown_scores_are_named():
    with pytest.raises(ValueError, match="'sharpnes'"):
        AnalyseRequest("video.mp4", WindowSpec(4, 8.0), ("sharpnes",))


def test_a_request_survives_json():
    request = AnalyseRequest("video.mp4", WindowSpec(4, 8.0, 2, True), ("sharpness", "motion"), num_samples=3)
    assert AnalyseRequest.of(json.loads(json.dumps(request.as_arguments()))) == request


def test_an_answer_names_the_video(bikes):
    header, _ = analysed(bikes, WindowSpec(16, 8.0))
    assert header["info"] == dataclasses.asdict(probe(bikes))
    assert VideoInfo(**header["info"]).num_frames == 250


def test_thumbnails_show_first_middle_and_last():
    frames = np.zeros((9, 72, 128, 3), np.uint8)
    frames[0, ..., 0] = frames[4, ..., 1] = frames[8, ..., 2] = 255
    (picture,) = decode_jpegs([thumbnail(list(frames))])
    assert picture.shape == (72, 3 * THUMBNAIL_SIDE, 3)
    for place, channel in enumerate((0, 1, 2)):
        middle = picture[30, place * THUMBNAIL_SIDE + THUMBNAIL_SIDE // 2].astype(int)
        assert middle[channel] > 240
        assert sum(middle) < 280


@pytest.mark.process
def test_planning_needs_no_computer_vision():
    code = "import sys, videogen.data.curation"
    code += "; print(*{'cv2', 'scenedetect', 'torch', 'duckdb', 'decord'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == ""
