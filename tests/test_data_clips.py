"""Planning: which frames become clips, captions found or refused, every video accounted for."""

import itertools
from functools import partial

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogen.cache import ByteCache
from videogen.data.datasets.clips import ClipSpec, plan_clips
from videogen.data.datasets.dataset import JoinedClips
from videogen.data.datasets.frames import FrameDataset
from videogen.data.sources import open_corpus, open_source
from videogen.data.synthetic import all_attributes, render_clip
from videogen.data.video import VideoInfo, write_mp4
from videogen.errors import UserError

SPEC = ClipSpec(num_frames=15, fps=16.0, size=64)


def write_clips(folder, *lengths):
    for index, length in enumerate(lengths):
        frames = render_clip(all_attributes()[index], index, num_frames=length)
        (folder / f"{index}.mp4").write_bytes(write_mp4(frames, 16))


def indices(spec, info):
    return [window.indices for window in spec.window_spec.windows(info)]


def list_videos(folder):
    return list(open_source(str(folder)).videos())


@given(
    num_frames=st.integers(1, 2000),
    fps=st.floats(1, 240),
    length=st.integers(2, 61),
    target=st.sampled_from([8.0, 16.0, 24.0, 32.0]),
)
def test_windows_are_even_disjoint_and_inside_the_video(num_frames, fps, length, target):
    windows = indices(ClipSpec(length, target, 64), VideoInfo(num_frames, fps, 64, 64))
    assert bool(windows) == (num_frames >= length)
    frames = [index for window in windows for index in range(window[0], window[-1] + 1)]
    assert len(frames) == len(set(frames))
    assert all(0 <= index < num_frames for index in frames)
    steps = {second - first for window in windows for first, second in itertools.pairwise(window)}
    assert len(steps) <= 1
    assert all(len(window) == length for window in windows)


def test_a_world_clip_is_one_window_and_camera_rates_are_halved():
    assert indices(SPEC, VideoInfo(15, 16.0, 64, 64)) == [tuple(range(15))]
    camera = indices(SPEC, VideoInfo(120, 30000 / 1001, 176, 144))
    assert [window[:3] for window in camera] == [(0, 2, 4), (29, 31, 33), (58, 60, 62), (87, 89, 91)]


@pytest.mark.process
def test_every_video_gives_clips_or_one_failure(tmp_path):
    write_clips(tmp_path, 15, 31, 9)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    videos = list_videos(tmp_path)
    plan = plan_clips(videos, SPEC)
    assert [clip.source.rsplit("/", 1)[-1] for clip in plan.clips] == ["0.mp4", "1.mp4", "1.mp4"]
    reasons = {failure.uri.rsplit("/", 1)[-1]: (failure.stage, failure.error) for failure in plan.failures}
    assert reasons["2.mp4"] == ("plan", "it has 9 frames, too few for a clip of 15")
    assert reasons["broken.mp4"][0] == "probe"
    assert plan.clips[1].fps == 16.0
    assert len({clip.clip_id for clip in plan.clips}) == 3


@pytest.mark.process
def test_a_replaced_video_is_another_clip(tmp_path):
    write_clips(tmp_path, 15)
    first = plan_clips(list_videos(tmp_path), SPEC).clips
    assert first == plan_clips(list_videos(tmp_path), SPEC).clips
    (tmp_path / "0.mp4").write_bytes(write_mp4(render_clip(all_attributes()[5], 1), 16))
    assert plan_clips(list_videos(tmp_path), SPEC).clips[0].clip_id != first[0].clip_id


def test_videos_are_found_in_sub_folders_by_name(tmp_path):
    (tmp_path / "b" / "c").mkdir(parents=True)
    for name in ("b/c/two.MP4", "b/one.webm", "a.txt", "three.mkv.part"):
        (tmp_path / name).write_bytes(b"x")
    assert [video.path for video in list_videos(tmp_path)] == ["b/c/two.MP4", "b/one.webm"]


def test_videos_in_a_bucket(s3):
    from videogen import storage

    storage.write_bytes(f"{s3}/corpus/x/0.mp4", write_mp4(render_clip(all_attributes()[0], 0), 16))
    (video,) = list_videos(f"{s3}/corpus")
    assert (video.uri, video.path) == (f"{s3}/corpus/x/0.mp4", "x/0.mp4")
    (clip,) = plan_clips([video], SPEC).clips
    assert clip.frame_indices == tuple(range(15))


@pytest.mark.parametrize(("make", "words"), [(False, "does not exist"), (True, "empty folder")])
def test_a_missing_or_empty_folder_is_refused(tmp_path, make, words):
    folder = tmp_path / "corpus"
    if make:
        folder.mkdir()
    with pytest.raises(UserError, match=words):
        list_videos(folder)


def test_a_folder_without_videos_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing to see")
    with pytest.raises(UserError, match="holds no video"):
        list_videos(tmp_path)


@pytest.mark.process
@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_captions_of_every_format_are_planned_alike(tmp_path, suffix):
    write_clips(tmp_path, 15, 15, 15)
    uris = [video.uri for video in list_videos(tmp_path)]
    rows = {"video": ["./0.mp4", uris[1], "elsewhere.mp4"], "caption": [" one  two ", "three", "four"]}
    write_captions(tmp_path, suffix, rows)
    source = open_corpus(str(tmp_path))
    plan = plan_clips(list(source.videos()), SPEC, captioned=source.has_captions)
    assert [(clip.source, clip.caption) for clip in plan.clips] == [(uris[0], "one two"), (uris[1], "three")]
    assert [(failure.uri, failure.error) for failure in plan.failures] == [(uris[2], "it has no caption")]


def write_captions(folder, suffix, columns):
    table, path = pd.DataFrame(columns), folder / f"captions.{suffix}"
    if suffix == "parquet":
        table.to_parquet(path)
    elif suffix == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_json(path, orient="records", lines=True)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"video": ["0.mp4"], "text": ["a"]}, "no column 'caption'"),
        ({"file": ["0.mp4"], "caption": ["a"]}, "no column 'video'"),
        ({"video": ["9.mp4"], "caption": ["a"]}, "describe none of the 1 videos"),
        ({"video": ["0.mp4"], "caption": ["  "]}, "describe none of the 1 videos"),
        ({"video": ["0.mp4"], "caption": [None]}, "describe none of the 1 videos"),
    ],
)
@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_captions_that_do_not_fit_are_refused(tmp_path, suffix, columns, words):
    write_clips(tmp_path, 15)
    write_captions(tmp_path, suffix, columns)
    with pytest.raises(UserError, match=words):
        open_corpus(str(tmp_path))


@pytest.mark.process
def test_raw_frames_as_a_dataset(tmp_path, tiny, caplog):
    write_clips(tmp_path, 15, 31)
    good = (tmp_path / "0.mp4").read_bytes()
    middle = len(good) // 2
    # The header is whole, the frames are not.
    (tmp_path / "00_damaged.mp4").write_bytes(good[: middle - 600] + bytes(len(good) - middle + 600))
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    dataset = FrameDataset.open(str(tmp_path), tiny)
    assert "broken.mp4 is skipped" in caplog.text
    rows = [dataset.row(index)["frames"] for index in range(len(dataset))]
    assert {(row.shape, str(row.dtype)) for row in rows} == {((15, 64, 64, 3), "uint8")}
    assert "00_damaged.mp4 cannot be decoded, the next clip replaces it" in caplog.text
    assert FrameDataset.open(str(tmp_path), tiny).fingerprint == dataset.fingerprint
    with pytest.raises(KeyError, match="caption"):
        dataset.row(0, ("caption",))


@pytest.mark.process
def test_raw_frames_of_nothing_usable_are_refused(tmp_path, tiny):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match=r"no usable video.*broken\.mp4"):
        FrameDataset.open(str(tmp_path), tiny)


@pytest.mark.process
def test_joined_datasets_are_one(tmp_path, tiny):
    parts = []
    for name, lengths in (("a", (15, 15)), ("b", (31,))):
        (tmp_path / name).mkdir()
        write_clips(tmp_path / name, *lengths)
        parts.append(FrameDataset.open(str(tmp_path / name), tiny))
    joined = JoinedClips(parts)
    assert len(joined) == 4
    assert (joined.row(3, ("frames",))["frames"] == parts[1].row(1)["frames"]).all()
    assert joined.fingerprint != JoinedClips(parts[::-1]).fingerprint
    with pytest.raises(IndexError):
        joined.row(4, ("frames",))


def test_the_cache_forgets_what_was_used_longest_ago():
    import numpy as np

    cache: ByteCache[np.ndarray] = ByteCache(2500)
    made = []

    def make(key):
        made.append(key)
        return np.zeros(1000, np.uint8)

    for key in "abacab":
        cache.get(key, partial(make, key))
    assert made == ["a", "b", "c", "b"]
