"""Clips of several aspects: one definition of their sizes, from the preset over the table to every stage's training."""

import itertools
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines.encode.pipeline import encode
from pipelines.train.identity import config_hash
from tests._videos import make
from videogen.config import FrameSize, nearest_size
from videogen.data.datasets import open_table
from videogen.data.datasets.clips import ClipSpec
from videogen.data.datasets.dataset import JoinedClips
from videogen.data.datasets.frames import FrameDataset
from videogen.data.datasets.latents_table import LatentsTable
from videogen.data.synthetic import all_attributes, render_clip
from videogen.data.video import read_frames, resize_frames, write_mp4
from videogen.errors import UserError
from videogen.pipeline import VideoGenPipeline
from videogen.reporting.contact_sheet import render_png
from videogen.reporting.table.reconstructions import reconstruct
from videogen.stages import apply_overrides, build_objective, load_preset
from videogen.training.loader import BatchPlan, Loader

THREE = "aspect_ratios=[16:9, 1:1, 9:16]"
SIZES = (FrameSize(80, 48), FrameSize(64, 64), FrameSize(48, 80))

# --- sizes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "sizes"),
    [
        ("tiny", ["48 x 80", "64 x 64", "80 x 48"]),
        ("small", ["192 x 320", "256 x 256", "320 x 192"]),
        ("paper", ["512 x 768", "512 x 512", "768 x 512"]),
    ],
)
def test_sizes_are_about_the_presets_area_and_divide_at_every_stage(preset, sizes):
    config = load_preset(preset, [THREE])
    assert config.aspect_ratios == ("9:16", "1:1", "16:9")
    assert [str(size) for size in config.frame_sizes] == sizes
    for size, name in itertools.product(config.frame_sizes, config.diffusion_stages()):
        section: Any = config.stage_config(name)
        latents = size.scaled(section.latent_size, config.resolution)
        assert latents.scaled(config.resolution // section.latent_size, 1) == size
        assert not any(side % 2 ** (len(section.model.block_out_channels) - 1) for side in latents)
        assert 0.6 < size.height * size.width / config.resolution**2 < 1.6


sides = st.integers(1, 65_536)


@given(sides, sides)
def test_a_clip_goes_to_the_size_that_cuts_least_of_it_away(width, height):
    def cut(size: FrameSize) -> float:
        return abs(math.log(width / height * size.height / size.width))

    number = nearest_size(width, height, SIZES)
    assert cut(SIZES[number]) <= min(map(cut, SIZES)) + 1e-9
    widths, heights = (np.array([side], np.int64) for side in (width, height))
    assert nearest_size(widths, heights, SIZES).tolist() == [number]


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ("wide", "'wide' is no aspect ratio: write width:height"),
        ("16:0", "'16:0' is no aspect ratio"),
        ("[1:1, 0:9]", "'0:9' is no aspect ratio"),
        ("nan:1", "'nan:1' is no aspect ratio"),
        ("-16:9", "'-16:9' is no aspect ratio"),
        ("1.5", "one or several of width:height.*given 1.5"),
        ("[]", "one or several of width:height"),
        ("100:1", "100:1 would become 80 x 2 latents.* multiples of 2.*nearer to 1:1"),
        ("1:1,6:5", "1:1 and 6:5 are both frames of 64 x 64 pixels"),
    ],
)
def test_bad_ratios_are_refused_in_a_sentence(ratios, words):
    with pytest.raises(UserError, match=words) as refused:
        load_preset("tiny", [f"aspect_ratios={ratios}"])
    assert "\n" not in str(refused.value)


def test_what_is_square_says_nothing_of_other_shapes(tiny):
    assert "aspect_ratios" not in tiny.model_dump(mode="json")
    assert ClipSpec.of(tiny).as_dict() == {
        "num_frames": 15,
        "fps": 16.0,
        "size": 64,
        "decoder": "decord 0.6",
        "crop": "centre square",
        "resize": "bicubic, antialiased",
        "range": "uint8 RGB",
        "pixels": "square",
    }
    # As the preset was before some of these settings were there: what they are by default has no say.
    before = ["model.block_out_channels=[16,32,32]", "model.attention_levels=[false,false,true]", "timestep_shift=10"]
    before += ["model.full_size_attention=true", "motion_weight=0", "training.steps=800"]
    as_before = apply_overrides(tiny, [f"base.{setting}" for setting in before])
    assert config_hash(as_before, "base") == "1c8cd1990e6b"
    several = apply_overrides(tiny, [THREE])
    assert config_hash(several, "base") != config_hash(tiny, "base")
    assert ClipSpec.from_dict(ClipSpec.of(several).as_dict()) == ClipSpec.of(several)


# --- pixels ------------------------------------------------------------------------------------------------------


def test_frames_are_cut_to_the_shape_and_not_squeezed():
    picture = np.zeros((1, 100, 300, 3), np.uint8)
    picture[:, :, 75:225] = 200  # the central 3:2, and nothing else
    wide, tall = resize_frames(picture, (64, 96)), resize_frames(picture.swapaxes(1, 2), (96, 64))
    assert (wide.shape, tall.shape) == ((1, 64, 96, 3), (1, 96, 64, 3))
    assert (wide[:, :, 2:-2] == 200).all()
    assert (tall[:, 2:-2] == 200).all()
    # One column more on either side would be black.
    assert (resize_frames(picture, (64, 100))[:, :, [0, -1]] < 100).all()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Return eight captioned videos: three wide, one of them stored turned, three tall, two square."""
    folder = tmp_path_factory.mktemp("aspects")
    names = ["a_wide", "b_tall", "c_square", "d_wide", "e_tall", "f_square", "g_tall"]
    for index, name in enumerate(names):
        frames = render_clip(all_attributes()[7 * index], seed=index, size=128)
        frames = {"wide": frames[:, 28:100], "tall": frames[:, :, 28:100], "square": frames}[name[2:]]
        (folder / f"{name}.mp4").write_bytes(write_mp4(frames, fps=16))
    make("rotated_90", folder / "h_turned.mp4")
    with av.open(str(folder / "h_turned.mp4")) as container:
        assert container.streams.video[0].height > container.streams.video[0].width
    videos = [path.name for path in sorted(folder.glob("*.mp4"))]
    captions = [f"a red circle moving {word}" for word in ("left", "right", "up", "down") * 2]
    pd.DataFrame({"video": videos, "caption": captions}).to_parquet(folder / "captions.parquet")
    return folder


@pytest.fixture(scope="module")
def config(tiny):
    return apply_overrides(tiny, [THREE, "decode.training_frames=2", "decode.adversarial_start=0"])


@pytest.fixture(scope="module")
def table(tmp_path_factory, ray_cluster, corpus, config, tiny_model) -> LatentsTable:
    result = encode(str(corpus), str(tmp_path_factory.mktemp("latents") / "table"), config, tiny_model)
    assert (result.ok, result.failed) == (8, 0)
    return LatentsTable.open(result.uri)


def expected_size(source: str) -> FrameSize:
    return {"tall": SIZES[0], "square": SIZES[1]}.get(Path(source).stem[2:], SIZES[2])


def test_each_clip_is_encoded_in_the_shape_nearest_to_its_own(table, tiny_model):
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(f"{tiny_model}/autoencoder").eval()
    shapes = table.shapes()
    for index in range(len(table)):
        row = table.row(index, ("latents_8", "latents_16", "source", "frames", "frame_indices"))
        height, width = expected_size(row["source"])
        assert (shapes.height[index], shapes.width[index]) == (height, width)
        assert row["frames"].shape == (15, height, width, 3)
        assert np.array_equal(row["frames"], read_frames(row["source"], row["frame_indices"], (height, width)))
        for size in (8, 16):
            assert row[f"latents_{size}"].shape == (15, 4, height * size // 64, width * size // 64)
            pixels = resize_frames(row["frames"][:2], (height * size // 16, width * size // 16))
            with torch.no_grad():
                means = vae.encode(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1).latent_dist.mean
            assert np.allclose(row[f"latents_{size}"][:2], means.numpy(), atol=2e-3, rtol=2e-3)
    assert set(shapes.frames) == {15}
    # The turned one, the last by name, has 24 frames a second, of which every other one is taken.
    assert shapes.fps.tolist() == [16.0] * 7 + [12.0]
    wide = table.select("width > height")
    assert wide.shapes().width.tolist() == [80] * 3


def test_what_shows_a_table_shows_its_shapes(table, tiny_model):
    from diffusers import AutoencoderKL

    trips = reconstruct(table.uri, lambda: AutoencoderKL.from_pretrained(f"{tiny_model}/autoencoder").eval(), 8)
    assert len(trips) == 8
    assert render_png(open_table(table.uri)).startswith(b"\x89PNG")
    page = Path(table.uri, "report", "index.html").read_text()
    assert "from pictures of 48 x 80, 64 x 64, 80 x 48 pixels" in page


def test_raw_frames_have_the_crop_that_is_encoded(corpus, config, table, tmp_path):
    raw = FrameDataset.open(str(corpus), config)
    for index in range(len(raw)):
        assert np.array_equal(raw.row(index)["frames"], table.row(index, ("frames",))["frames"])
    assert all(np.array_equal(*pair) for pair in zip(raw.shapes()[:3], table.shapes()[:3], strict=True))
    assert set(raw.shapes().fps) == {16.0}  # frames that are trained on one by one have no rate
    # Who stands in for a video that is damaged has its shape.
    shutil.copytree(corpus, tmp_path / "damaged")
    good = (corpus / "a_wide.mp4").read_bytes()
    (tmp_path / "damaged" / "a_wide.mp4").write_bytes(good[: len(good) // 3] + bytes(len(good) - len(good) // 3))
    assert FrameDataset.open(str(tmp_path / "damaged"), config).row(0)["frames"].shape == (15, 48, 80, 3)


def test_a_table_of_other_shapes_than_the_presets_is_refused(table, config, tiny):
    table.require_matches(config)
    with pytest.raises(UserError, match=r"of 48 x 80, 64 x 64, 80 x 48 pixels, .* is for 64 x 64: set .*aspect_ratios"):
        table.require_matches(tiny)


# --- training and generation -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["autoencoder", "reference", "base", "upsample", "interpolate", "decode"])
def test_every_stage_trains_on_frames_that_are_not_square(stage, table, corpus, config, tiny_model):
    clips = FrameDataset.open(str(corpus), config) if stage == "autoencoder" else table
    objective = build_objective(stage, config, tiny_model)
    loader = Loader(JoinedClips([clips]), objective.fields, objective.collate, BatchPlan(2), seed=0)
    sizes: Counter[tuple[int, int]] = Counter()
    for bucket, rows in loader.buckets.items():
        sizes[bucket.height, bucket.width] += rows
    assert sizes == {(80, 48): 3, (64, 64): 2, (48, 80): 3}
    # One wide clip is slower than the others.
    assert len(loader.buckets) == (3 if stage == "autoencoder" else 4)
    micros = (micro for (micro,) in loader.steps(0, 8))
    micro = next(micro for micro in micros if micro.bucket.height != micro.bucket.width)
    loss, _ = objective(micro.batch, torch.Generator().manual_seed(0))
    loss.backward()
    assert torch.isfinite(loss)
    gradients = [weight.grad for weight in objective.parameters() if weight.grad is not None]
    assert any(gradient.any() for gradient in gradients)


def test_a_model_makes_frames_of_the_size_that_is_asked_for(tiny_model):
    pipeline = VideoGenPipeline.from_pretrained(tiny_model)
    pipeline.set_progress_bar_config(disable=True)
    output = pipeline("a red circle moving left", seed=1, height=64, width=96)
    assert output.frames.shape == (1, 15, 64, 96, 3)
    assert output.samples[0]["reference_image"].shape == (64, 96, 3)
    assert output.samples[0]["latents"].shape == (15, 4, 16, 24)
    for size in ({"width": 72}, {"height": 0}, {"height": -16}):
        with pytest.raises(UserError, match="multiples of 16"):
            pipeline("a red circle", seed=1, **size)
