"""Windows: where clips begin and end, in videos of constant and of variable rate, with and without shots."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videogen.data.curation import ShotWindows, WindowSpec, clock_of
from videogen.data.video import VideoInfo


def constant(num_frames: int, fps: float) -> VideoInfo:
    return VideoInfo(num_frames, fps, 64, 64)


def variable(timestamps) -> VideoInfo:
    times = tuple(timestamps)
    fps = (len(times) - 1) / (times[-1] or 1)
    return VideoInfo(len(times), fps, 64, 64, variable_fps=True, timestamps=times)


def starts(windows):
    return [window.indices[0] for window in windows]


@pytest.mark.parametrize(
    ("num_frames", "fps", "expected"),
    [
        (15, 16.0, [range(15)]),
        (14, 16.0, []),
        (31, 16.0, [range(15), range(15, 30)]),
        (120, 29.97, [range(start, start + 29, 2) for start in (0, 29, 58, 87)]),
        (28, 29.97, [range(15)]),  # too short for every second frame
        (60, 25.0, [range(start, start + 29, 2) for start in (0, 29)]),
    ],
)
def test_every_whole_step_th_frame_is_taken_without_overlap(num_frames, fps, expected):
    windows = WindowSpec(15, 16.0).windows(constant(num_frames, fps))
    assert [window.indices for window in windows] == [tuple(indices) for indices in expected]


def test_times_and_rate_are_those_of_the_frames():
    first, second = WindowSpec(4, 10.0).windows(constant(20, 20.0))[:2]
    assert (first.indices, second.indices) == ((0, 2, 4, 6), (7, 9, 11, 13))
    assert (first.start_s, first.end_s, first.fps) == (0.0, 7 / 20, 10.0)
    assert (second.start_s, second.end_s, second.shot) == (7 / 20, 14 / 20, 0)


def test_a_stride_counts_frames_of_the_clip():
    overlapping = WindowSpec(4, 10.0, stride_frames=2).windows(constant(20, 20.0))
    assert starts(overlapping) == [0, 4, 8, 12]
    assert starts(WindowSpec(4, 10.0, stride_frames=6).windows(constant(40, 20.0))) == [0, 12, 24]


def test_shots_are_cut_one_by_one_and_numbered():
    windows = WindowSpec(4, 10.0).windows(constant(40, 20.0), [(0, 9), (9, 12), (12, 17), (17, 40)])
    assert [(window.shot, window.indices[0], window.indices[-1]) for window in windows] == [
        (0, 0, 6),
        (2, 12, 15),  # five frames: too short for every second one
        (3, 17, 23),
        (3, 24, 30),
        (3, 31, 37),
    ]


def test_a_clip_of_one_frame():
    assert [window.indices for window in WindowSpec(1, 10.0).windows(constant(3, 20.0))] == [(0,), (1,), (2,)]


@pytest.mark.parametrize(
    ("change", "named"), [({"num_frames": 0}, "0"), ({"fps": 0.0}, "0.0"), ({"stride_frames": 0}, "0")]
)
def test_impossible_windows_are_refused(change, named):
    with pytest.raises(ValueError, match=named):
        WindowSpec(**{"num_frames": 4, "fps": 8.0, **change})


def test_variable_rate_takes_the_frame_nearest_to_each_point_in_time():
    # 30 frames a second with the frames of the first half doubled in distance: 15 a second there.
    times = [i / 15 for i in range(15)] + [1 + i / 30 for i in range(31)]
    windows = WindowSpec(5, 10.0).windows(variable(times))
    # The usual distance is 1/30 s, so a step is 3 of these: 0.1 s.
    for window in windows:
        taken = [times[index] for index in window.indices]
        for number, time in enumerate(taken):
            point = taken[0] + number * 0.1
            assert abs(time - point) == pytest.approx(min(abs(other - point) for other in times))
        assert window.fps == pytest.approx(10.0)
    assert len(windows) == 4


def test_variable_rate_with_even_times_gives_what_constant_rate_gives():
    times = [round(i / 29.97, 3) for i in range(120)]  # milliseconds, as Matroska keeps them
    expected = WindowSpec(15, 16.0).windows(constant(120, 29.97))
    windows = WindowSpec(15, 16.0).windows(variable(times))
    assert [window.indices for window in windows] == [window.indices for window in expected]


def test_a_short_shot_of_variable_rate_is_taken_at_a_smaller_step():
    times = [i / 30 for i in range(8)]
    (window,) = WindowSpec(8, 10.0).windows(variable(times))
    assert window.indices == tuple(range(8))
    assert WindowSpec(9, 10.0).windows(variable(times)) == []


def test_a_picture_that_stands_gives_no_clip_however_long_a_file_says_it_stands():
    moving = [i / 10 for i in range(10)]
    years = 1e9
    windows = WindowSpec(5, 10.0).windows(variable([*moving, *(years + time for time in moving)]))
    assert 3 <= len(windows) <= 5
    assert all(len(set(window.indices)) > 1 for window in windows)


timelines = st.lists(st.sampled_from([0.0, 0.001, 0.033, 0.034, 0.04, 0.1, 2.0]), min_size=1, max_size=80).map(
    lambda gaps: variable(itertools.accumulate(gaps, initial=0.0))
)
videos = st.builds(constant, st.integers(1, 120), st.sampled_from([5.0, 12.5, 24.0, 25.0, 29.97, 60.0])) | timelines
specs = st.builds(WindowSpec, st.integers(1, 9), st.sampled_from([4.0, 8.0, 16.0]), st.none() | st.integers(1, 12))


@settings(deadline=None)
@given(videos, specs, st.data())
def test_windows_stay_in_their_shot_in_order_and_in_time(info, spec, data):
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, info.num_frames - 1)), max_size=4)))
    borders = [0, *(cut for cut in cuts if cut < info.num_frames), info.num_frames]
    shots = list(itertools.pairwise(borders))
    windows = spec.windows(info, shots)
    for window in windows:
        start, end = shots[window.shot]
        assert len(window.indices) == spec.num_frames
        assert start <= window.indices[0] <= window.indices[-1] < end
        assert list(window.indices) == sorted(window.indices)
        assert window.start_s <= window.end_s
    assert [(w.shot, w.indices[0]) for w in windows] == sorted((w.shot, w.indices[0]) for w in windows)
    if spec.stride_frames is None and not info.timestamps:
        taken = [index for window in windows for index in window.indices]
        assert len(taken) == len(set(taken))


@settings(deadline=None)
@given(videos, specs)
def test_windows_that_are_known_early_are_those_known_at_the_end(info, spec):
    clock = clock_of(info)
    shot = ShotWindows(spec, clock, 0, 0)
    early = []
    for end in range(1, info.num_frames + 1):
        oldest = shot.oldest_needed
        new = list(shot.known(end))
        assert all(window.indices[0] >= min(oldest, end - 1) for window in new)
        early += new
    oldest = shot.oldest_needed
    rest = list(shot.close(info.num_frames))
    assert all(window.indices[0] >= oldest for window in rest)
    assert early + rest == spec.windows(info)
    # Nothing waits longer than it has to: at the end, only what the end decides is left.
    assert len(rest) <= 1 or len(early) == 0
