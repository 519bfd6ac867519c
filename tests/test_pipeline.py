"""`VideoGenPipeline`: saving, loading, and the same frames whatever is around a sample."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from videogen.errors import UserError
from videogen.pipeline import VideoGenPipeline
from videogen.stages import load_cascade_config, load_stages, new_sample, run_stages

PROMPT, SEED = "a red circle moving left", 7


@pytest.fixture(scope="module")
def pipeline(tiny_model: str) -> VideoGenPipeline:
    pipeline = VideoGenPipeline.from_pretrained(tiny_model)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def frames(pipeline: VideoGenPipeline) -> np.ndarray:
    return pipeline(PROMPT, generator=torch.Generator().manual_seed(SEED)).frames[0]


def test_frames_have_the_presets_shape(frames: np.ndarray) -> None:
    assert frames.shape == (15, 64, 64, 3)
    assert frames.dtype == np.uint8
    assert frames.std() > 0


def test_a_sample_is_the_same_alone_in_a_batch_and_on_any_number_of_threads(
    pipeline: VideoGenPipeline, frames: np.ndarray
) -> None:
    prompts = ["a blue square moving up", PROMPT, "something else", "a green triangle moving down slowly"]
    before = torch.get_num_threads()
    torch.set_num_threads(1 if before > 1 else 2)
    try:
        together = pipeline(prompts, seed=[1, SEED, 2, 3]).frames
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(together[1], frames)
    assert not np.array_equal(together[0], together[3])


def test_stages_loaded_one_by_one_give_the_pipelines_frames(tiny_model: str, frames: np.ndarray) -> None:
    stages = load_stages(load_cascade_config(tiny_model), tiny_model)
    [result] = run_stages(stages, [new_sample(PROMPT, SEED)])
    assert np.array_equal(result["frames"], frames)
    for stage in stages:
        assert set(stage.consumes) <= set(result), stage.name


def test_a_saved_pipeline_is_in_diffusers_layout_and_loads_back(
    pipeline: VideoGenPipeline, frames: np.ndarray, tmp_path: Path
) -> None:
    pipeline.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["base"] == ["videogen.models.unet", "VideoUNet"]
    assert index["cascade"]["name"] == "tiny"
    assert not [file for file in tmp_path.rglob("*") if file.suffix in (".bin", ".pt", ".pkl", ".ckpt")]
    loaded = VideoGenPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert np.array_equal(loaded(PROMPT, seed=SEED).frames[0], frames)


def test_a_given_reference_image_is_used(pipeline: VideoGenPipeline, frames: np.ndarray) -> None:
    image = Image.new("RGB", (128, 96), (200, 30, 30))
    output = pipeline(PROMPT, seed=SEED, reference_image=image, output_type="pil")
    assert output.samples[0]["reference_image"].shape == (64, 64, 3)
    assert np.ptp(output.samples[0]["reference_image"]) == 170
    assert len(output.frames[0]) == 15
    assert not np.array_equal(np.stack([np.asarray(frame) for frame in output.frames[0]]), frames)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prompt": "  "}, "empty"),
        ({"prompt": "x", "seed": -1}, None),
        ({"prompt": ["a", "b"], "seed": [1]}, "1 seeds for 2 prompts"),
        ({"prompt": ["a", "b"], "negative_prompt": ["c"]}, "negative_prompt has 1"),
        ({"prompt": "x", "output_type": "gif"}, "'gif'"),
        ({"prompt": "x", "seed": 1, "generator": torch.Generator()}, "one of them"),
        ({"prompt": "x", "reference_image": np.zeros((8, 8), np.uint8)}, "uint8"),
    ],
)
def test_bad_arguments_are_answered_in_a_sentence(
    pipeline: VideoGenPipeline, arguments: dict, words: str | None
) -> None:
    with pytest.raises(UserError, match=words):
        pipeline(**arguments)


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="not a finished model"):
        load_cascade_config(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"decode": ["videogen.models.autoencoder", "VideoAutoencoder"]}, "earlier release.*train_cascade.py again"),
        ({"cascade": None}, "another kind of model"),
    ],
)
def test_a_model_of_an_earlier_release_is_refused_in_one_sentence(tiny_model, tmp_path, change, said):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | change))
    with pytest.raises(UserError, match=said):
        VideoGenPipeline.from_pretrained(folder)


def test_a_model_saved_with_another_scheduler_is_loaded(pipeline, tmp_path):
    from diffusers import DDIMScheduler

    changed = VideoGenPipeline(cascade=pipeline.config.cascade, **pipeline.components)
    changed.register_modules(scheduler=DDIMScheduler.from_config(pipeline.scheduler.config))
    changed.save_pretrained(tmp_path / "saved")
    index = json.loads((tmp_path / "saved" / "model_index.json").read_text())
    assert index["scheduler"] == ["diffusers", "DDIMScheduler"]
    VideoGenPipeline.from_pretrained(tmp_path / "saved")
