"""The moving-shapes world: what a caption says is what the pixels show, for every seed."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videogen.data import synthetic
from videogen.data.synthetic import Attributes, parse_caption, render_clip
from videogen.data.video import read_frames, write_mp4

SENTENCES = synthetic.all_attributes()
ANY_CLIP = given(attributes=st.sampled_from(SENTENCES), seed=st.integers(0, 2**32 - 1))


def chroma(frames: np.ndarray) -> np.ndarray:
    """Return how far a pixel's channels are apart, int (F, H, W); a background's never reach 50."""
    wide = frames.astype(np.int16)
    return wide.max(axis=-1) - wide.min(axis=-1)


def saturated(frames: np.ndarray) -> np.ndarray:
    """Return the pixels of the shape, bool (F, H, W)."""
    return chroma(frames) > 90


def centres(frames: np.ndarray) -> np.ndarray:
    """Return the centre (x, y) of the shape in each frame; partly covered pixels count partly."""
    weight = np.clip(chroma(frames) - 50.0, 0, None)
    x, y = weight.sum(axis=1), weight.sum(axis=2)
    position = np.arange(frames.shape[1]) + 0.5
    return np.stack([x @ position / x.sum(axis=1), y @ position / y.sum(axis=1)], axis=1)


def test_the_grammar_is_the_documented_one():
    captions = [attributes.caption for attributes in SENTENCES]
    assert len(captions) == len(set(captions)) == 6 * 3 * 4 * 3
    assert captions[0] == "a red circle moving left slowly"
    assert "a magenta triangle moving down quickly" in captions
    assert "a yellow square moving up" in captions


@pytest.mark.parametrize("attributes", SENTENCES, ids=lambda attributes: attributes.caption)
def test_captions_read_back(attributes):
    assert parse_caption(attributes.caption) == attributes
    assert parse_caption(f"  {attributes.caption.upper()}. ") == attributes


@pytest.mark.parametrize("caption", ["", "a red circle", "a pink circle moving left", "red circle moving left fast"])
def test_other_sentences_are_not_of_the_world(caption):
    assert parse_caption(caption) is None


def test_unknown_attributes_are_refused():
    with pytest.raises(ValueError, match="pink"):
        Attributes("pink", "circle", "left")


def test_held_out_combinations_are_whole_and_every_pair_is_seen():
    train = [parse_caption(caption) for caption in synthetic.train_captions()]
    held_out = [parse_caption(caption) for caption in synthetic.held_out_captions()]
    assert (len(train), len(held_out)) == (162, 54)
    triples = {(a.colour, a.shape, a.direction) for a in held_out}
    assert len(triples) == 18
    assert not triples & {(a.colour, a.shape, a.direction) for a in train}
    for first, second in itertools.combinations(("colour", "shape", "direction"), 2):
        seen = {(getattr(a, first), getattr(a, second)) for a in train}
        assert seen == {(getattr(a, first), getattr(a, second)) for a in SENTENCES}


@ANY_CLIP
@settings(deadline=None, max_examples=60)
def test_the_shape_moves_as_told_and_stays_in_the_frame(attributes, seed):
    frames = render_clip(attributes, seed)
    assert frames.shape == (15, 64, 64, 3)
    assert frames.dtype == np.uint8
    mask = saturated(frames)
    # Whole in every frame: the same area, and nothing at the border.
    areas = mask.sum(axis=(1, 2))
    assert areas.min() > 0.85 * areas.max()
    assert not mask[:, [0, -1]].any()
    assert not mask[:, :, [0, -1]].any()
    path = centres(frames)
    step = np.asarray(synthetic.DIRECTIONS[attributes.direction])
    moved = path[-1] - path[0]
    assert moved @ step == pytest.approx(synthetic.SPEEDS[attributes.speed] * 64, abs=0.8)
    assert np.abs(moved - (moved @ step) * step).max() < 0.8
    # Evenly: no frame jumps or rests.
    assert np.abs(np.diff(path, axis=0) - moved / 14).max() < 0.6


@ANY_CLIP
@settings(deadline=None, max_examples=60)
def test_the_colour_can_be_measured(attributes, seed):
    frames = render_clip(attributes, seed)
    inside = frames[saturated(frames)].mean(axis=0)
    names = list(synthetic.COLOURS)
    references = np.asarray(list(synthetic.COLOURS.values()))
    cosine = references @ inside / np.linalg.norm(references, axis=1)
    assert names[int(np.argmax(cosine))] == attributes.colour


@ANY_CLIP
@settings(deadline=None, max_examples=30)
def test_clips_are_functions_of_caption_and_seed(attributes, seed):
    assert np.array_equal(render_clip(attributes, seed), render_clip(attributes, seed))
    assert not np.array_equal(render_clip(attributes, seed), render_clip(attributes, seed + 1))


def test_the_speeds_differ_clearly():
    slow, normal, quick = (synthetic.SPEEDS[name] * 64 for name in ("slowly", "normal", "quickly"))
    assert 2 * slow <= normal
    assert 1.5 * normal <= quick


def test_outlines_are_anti_aliased():
    frames = render_clip(Attributes("red", "circle", "right"), 0)
    partly = (chroma(frames) > 60) & (chroma(frames) < 150)
    assert partly.sum(axis=(1, 2)).min() > 8


def test_backgrounds_are_textured_and_vary():
    clips = [render_clip(SENTENCES[0], seed) for seed in range(20)]
    grounds = [np.where(saturated(clip)[0], np.nan, clip[0].mean(axis=-1)) for clip in clips]
    assert min(np.nanstd(ground) for ground in grounds) > 4
    assert np.std([np.nanmean(ground) for ground in grounds]) > 10


@pytest.mark.parametrize("shape", synthetic.SHAPES)
def test_the_world_survives_an_mp4(shape):
    attributes = Attributes("blue", shape, "up", "quickly")
    decoded = read_frames(write_mp4(render_clip(attributes, 3), 16), range(15), 64)
    path = centres(decoded)
    assert path[-1, 1] - path[0, 1] == pytest.approx(-32, abs=1)


def test_other_lengths_and_sizes_scale():
    attributes = Attributes("cyan", "square", "right", "quickly")
    path = centres(render_clip(attributes, 1, num_frames=31, size=128))
    assert len(path) == 31
    assert path[-1, 0] - path[0, 0] == pytest.approx(64, abs=1)
