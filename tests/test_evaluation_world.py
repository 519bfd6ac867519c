"""The measurement of moving-shapes videos: right on real clips, robust on imperfect ones."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videogen.data.synthetic import SPEEDS, Attributes, all_attributes, render_clip
from videogen.data.video import read_frames, write_mp4
from videogen.evaluation import measure


def _through_mp4(frames: np.ndarray) -> np.ndarray:
    return read_frames(write_mp4(frames, fps=16), range(len(frames)), frames.shape[1])


def _right(attributes: Attributes, frames: np.ndarray) -> bool:
    return measure(frames).shows(attributes.colour, attributes.shape, attributes.direction)


def _blurred(frames: np.ndarray) -> np.ndarray:
    side = frames.shape[1] // 2
    small = frames.reshape(len(frames), side, 2, side, 2, 3).mean(axis=(2, 4)).astype(np.uint8)
    return small.repeat(2, axis=1).repeat(2, axis=2)


def _noisy(frames: np.ndarray) -> np.ndarray:
    return np.clip(frames + np.random.default_rng(0).normal(0, 20, frames.shape), 0, 255).astype(np.uint8)


def _faded(frames: np.ndarray) -> np.ndarray:
    return (frames * 0.5 + 64).astype(np.uint8)


@pytest.mark.slow
def test_every_caption_is_read_back_from_its_mp4() -> None:
    clips = [(attributes, render_clip(attributes, seed)) for seed, attributes in enumerate(all_attributes())]
    right = [_right(attributes, _through_mp4(frames)) for attributes, frames in clips]
    assert np.mean(right) >= 0.99


@pytest.mark.parametrize("spoil", [_blurred, _noisy, _faded])
def test_imperfect_frames_are_still_read(spoil) -> None:
    clips = [(attributes, render_clip(attributes, seed)) for seed, attributes in enumerate(all_attributes()[::3])]
    assert np.mean([_right(attributes, spoil(frames)) for attributes, frames in clips]) >= 0.98


@settings(max_examples=60, deadline=None)
@given(attributes=st.sampled_from(all_attributes()), seed=st.integers(0, 2**31), num_frames=st.integers(5, 24))
def test_measures_are_those_of_the_rendered_path(attributes: Attributes, seed: int, num_frames: int) -> None:
    measured = measure(render_clip(attributes, seed, num_frames))
    assert measured.shows(attributes.colour, attributes.shape, attributes.direction)
    assert measured.displacement_px == pytest.approx(SPEEDS[attributes.speed] * 64, abs=0.6)
    assert measured.visible == 1
    assert measured.smoothness > 0.9


def test_repeated_key_frames_do_not_count_as_smooth() -> None:
    frames = render_clip(Attributes("red", "circle", "left", "quickly"), 0)
    assert measure(frames[::2].repeat(2, axis=0)).smoothness < 0.3 < 0.9 < measure(frames).smoothness


def test_a_second_smaller_blob_and_a_lost_frame_change_nothing() -> None:
    attributes = Attributes("blue", "triangle", "up", "quickly")
    frames = render_clip(attributes, 3)
    frames[:, 2:7, 50:55] = (220, 30, 30)
    frames[6] = 128
    measured = measure(frames)
    assert measured.shows("blue", "triangle", "up")
    assert measured.visible == pytest.approx(14 / 15)


def test_a_video_without_shape_or_motion_claims_neither() -> None:
    grey = np.full((15, 64, 64, 3), 120, np.uint8)
    assert measure(grey).colour is None
    assert measure(grey).direction is None
    still = render_clip(Attributes("green", "square", "down"), 1)[:1].repeat(15, axis=0)
    assert measure(still).shape == "square"
    assert measure(still).direction is None


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), num_frames=st.integers(1, 4), contrast=st.floats(0, 1))
def test_any_pixels_give_finite_numbers(seed: int, num_frames: int, contrast: float) -> None:
    blocks = np.random.default_rng(seed).integers(0, 256, (num_frames, 8, 8, 3))
    frames = (128 + contrast * (blocks - 128)).astype(np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    measured = measure(frames)
    assert np.isfinite([measured.displacement_px, measured.smoothness, measured.confidence]).all()


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        measure(np.zeros((15, 64, 64, 3), np.float32))


def test_one_clip_takes_milliseconds() -> None:
    frames = render_clip(Attributes("cyan", "circle", "right"), 0)
    measure(frames)
    started = time.perf_counter()
    for _ in range(10):
        measure(frames)
    # 5 ms on an idle core; the bound leaves room for a busy machine.
    assert (time.perf_counter() - started) / 10 < 0.1
