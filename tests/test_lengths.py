"""Clips of several lengths: a table for each, one training on all, and no batch that mixes them."""

import numpy as np
import pytest
import torch

from pipelines.encode.pipeline import encode
from pipelines.train.identity import config_hash
from pipelines.train.inputs import CascadeInput, CascadeOptions
from videogen.data.datasets.latents_table import discover_tables
from videogen.data.synthetic import all_attributes, render_clip
from videogen.data.video import write_mp4
from videogen.errors import UserError
from videogen.stages import apply_overrides, build_objective, dataset_kind, load_preset
from videogen.training.datasets import open_clips
from videogen.training.loader import BatchPlan, Loader

BUCKETS = "num_frames_buckets=4"


@pytest.fixture(scope="module")
def config(tiny):
    return apply_overrides(tiny, [BUCKETS, "decode.adversarial_start=0"])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Return three captioned videos of 15 frames and two of 7."""
    import pandas as pd

    folder = tmp_path_factory.mktemp("lengths")
    captions = {}
    for index, frames in enumerate((15, 7, 15, 7, 15)):
        attributes = all_attributes()[11 * index]
        name = f"{index}_{frames}.mp4"
        (folder / name).write_bytes(write_mp4(render_clip(attributes, seed=index, num_frames=frames), fps=16))
        captions[name] = attributes.caption
    pd.DataFrame({"video": list(captions), "caption": list(captions.values())}).to_parquet(folder / "captions.parquet")
    return folder


@pytest.fixture(scope="module")
def latents(tmp_path_factory, ray_cluster, corpus, config, tiny_model):
    """Return a folder of one table for each length."""
    folder = tmp_path_factory.mktemp("latents")
    for one in config.of_each_length():
        encode(str(corpus), str(folder / f"{one.num_output_frames}"), one, tiny_model)
    return folder


def test_lengths_follow_from_key_frames(tiny, config):
    assert config.clip_lengths == (7, 15)
    assert [one.num_frames for one in config.of_each_length()] == [8, 4]
    assert tiny.clip_lengths == (15,)
    assert apply_overrides(tiny, ["num_frames_buckets=[12, 4, 12]"]).clip_lengths == (7, 15, 23)
    # A stage is its settings and its data, which say of themselves how long they are.
    assert "num_frames_buckets" not in tiny.model_dump(mode="json")
    assert config_hash(apply_overrides(tiny, [BUCKETS]), "base") == config_hash(tiny, "base")
    assert (
        apply_overrides(config, ["num_frames_buckets=[]"]).model_dump()
        == apply_overrides(tiny, ["decode.adversarial_start=0"]).model_dump()
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("1", "2 or more"),
        ("[4, 0]", "2 or more"),
        ("8", "which num_frames is already: leave it out"),
        *((value, "whole numbers of key frames, e.g. 8 or 4,8") for value in ("many", "4.5", "4,", "true", "[[4]]")),
    ],
)
def test_what_is_no_length_is_refused_in_a_sentence(value, words):
    with pytest.raises(UserError, match=f"num_frames_buckets.*{words}") as refused:
        load_preset("tiny", [f"num_frames_buckets={value}"])
    assert "\n" not in str(refused.value)


def test_a_table_holds_the_clips_of_its_length(latents):
    # 15 frames are one clip of 15, or two of 7.
    tables = discover_tables(str(latents))
    assert {table.manifest["num_frames"]: len(table) for table in tables} == {7: 3 * 2 + 2, 15: 3}


@pytest.mark.parametrize("stage", ["reference", "base", "upsample", "interpolate", "decode"])
def test_every_stage_trains_on_all_lengths(stage, latents, config, tiny_model):
    clips = open_clips(dataset_kind(stage), [str(latents)], config)
    objective = build_objective(stage, config, tiny_model)
    loader = Loader(clips, objective.fields, objective.collate, BatchPlan(2), seed=0)
    assert {bucket.frames: rows for bucket, rows in loader.buckets.items()} == {7: 8, 15: 3}
    losses = {}
    for (micro,) in loader.steps(0, 11):
        frames = micro.batch["latents"].shape[2 if stage in ("base", "upsample") else 1]
        expected = micro.bucket.frames // 2 + 1 if stage in ("base", "upsample") else micro.bucket.frames
        assert frames == expected
        if frames not in losses:
            losses[frames] = float(objective(micro.batch, torch.Generator().manual_seed(0))[0].detach())
    assert len(losses) == 2
    assert np.isfinite(list(losses.values())).all()


def test_a_length_that_is_not_asked_for_is_refused(latents, tiny):
    with pytest.raises(UserError, match=r"num_frames 7, but preset 'tiny' needs 15"):
        open_clips("captioned", [str(latents)], tiny)


def test_a_length_that_no_table_has_is_missed(latents, tiny, tmp_path):
    options = CascadeOptions(str(tmp_path / "model"), str(latents), stages=("base",))
    with pytest.raises(UserError, match=r"no captioned latents of clips of 23 frames.*--set num_frames=12"):
        CascadeInput(apply_overrides(tiny, ["num_frames_buckets=4,12"]), options)


@pytest.mark.process
def test_a_run_on_videos_encodes_every_length(corpus, config, tiny, tmp_path):
    options = CascadeOptions(str(tmp_path / "model"), str(corpus))
    there = CascadeInput(config, options)
    assert {step: encoding.config.num_output_frames for step, encoding in there.encodings.items()} == {
        # As without other lengths: what it has made is gone on with.
        **dict.fromkeys(CascadeInput(tiny, options).encodings, 15),
        "encode_clips_7_frames": 7,
    }
    assert there.table_uris == [encoding.table for encoding in there.encodings.values()]
    assert len(set(there.table_uris)) == 2


@pytest.mark.process
def test_videos_too_short_for_a_length_are_refused_before_any_work(corpus, config, tmp_path):
    longer = apply_overrides(config, ["num_frames_buckets=4,30"])
    with pytest.raises(UserError, match=r"gives a clip of 59 frames"):
        CascadeInput(longer, CascadeOptions(str(tmp_path / "model"), str(corpus)))
