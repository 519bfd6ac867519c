"""Evaluation: what is scored, which data counts as held out, and the keys that scripts rely on."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines.generate.fingerprint import model_fingerprint
from pipelines.generate.manifest import write_manifest
from pipelines.generate.model import read_config
from pipelines.generate.prompts import read_requests
from tests.conftest import load_job, without_frames
from videogen.data.isolation import shared_decoder
from videogen.data.synthetic import Attributes, render_clip
from videogen.data.video import write_mp4
from videogen.errors import UserError
from videogen.evaluation.evaluate import evaluate
from videogen.evaluation.faithfulness import confusion, score_missing_video, score_video, summarise
from videogen.evaluation.held_out import HeldOut, HeldOutClip, find_held_out
from videogen.evaluation.psnr import StagePsnr, measure_stages, overall, psnr_db
from videogen.pipeline import save_random

PROMISED = {
    *("colour_accuracy", "shape_accuracy", "direction_accuracy", "decoder_psnr_db", "image_decoder_psnr_db"),
    *("interpolation_psnr_db", "blend_psnr_db", "num_prompts"),
}


def test_a_video_is_judged_attribute_by_attribute() -> None:
    frames = render_clip(Attributes("red", "circle", "left", "quickly"), seed=1)
    right = score_video("a red circle moving left quickly", frames, temporal_factor=2)
    wrong = score_video("a red square moving left", frames, temporal_factor=2)
    assert right is not None
    assert wrong is not None
    assert right["correct"]
    assert right["displacement_px"] == pytest.approx(right["asked_displacement_px"], abs=0.5)
    assert right["smoothness"] > 0.9 > 0.4 > right["smoothness_uninterpolated"]
    assert not wrong["correct"]
    assert wrong["shape"] == {"asked": "square", "measured": "circle", "correct": False}
    failed = score_missing_video("a red circle moving left")
    assert failed is not None
    summary = summarise([right, wrong, failed])
    assert [summary[f"{name}_accuracy"] for name in ("colour", "shape", "direction")] == [0.6667, 0.3333, 0.6667]
    assert confusion([right, wrong, failed], "shape") == {"circle": {"circle": 1, "none": 1}, "square": {"circle": 1}}
    assert score_video("a cat", frames) is None


def test_psnr_is_the_formula_and_the_mean_over_clips() -> None:
    truth = np.full((2, 8, 8, 3), 100, np.uint8)
    assert psnr_db(truth + np.uint8(10), truth) == pytest.approx(20 * np.log10(255 / 10))
    parts = [StagePsnr(1, 10, 10, 10, 10, 10), StagePsnr(3, 30, 20, 30, 20, 30)]
    assert overall(parts) == StagePsnr(4, 25, 17.5, 25, 17.5, 25)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, world_corpus: Path, camera_corpus: Path) -> Path:
    """Return a corpus folder with captioned and unlabeled held-out clips, and clips to train on beside them."""
    folder = tmp_path_factory.mktemp("data")
    shutil.copytree(world_corpus, folder / "held_out" / "captioned")
    shutil.copytree(camera_corpus, folder / "held_out" / "unlabeled")
    shutil.copytree(world_corpus, folder / "captioned")
    return folder


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder as batch generation leaves it: two right videos, a wrong one, a failed one, one off-world."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "videos").mkdir()
    shown = [
        ("a red circle moving left", Attributes("red", "circle", "left")),
        ("a blue square moving up quickly", Attributes("blue", "square", "up", "quickly")),
        ("a green triangle moving down", Attributes("green", "circle", "down")),
        ("a cyan square moving right", None),
        ("a cat", Attributes("green", "circle", "down")),
    ]
    rows = []
    for number, (prompt, attributes) in enumerate(shown):
        video = str(folder / "videos" / f"{number}.mp4") if attributes else ""
        if attributes:
            Path(video).write_bytes(write_mp4(render_clip(attributes, number), 16))
        status = ("ok", "") if attributes else ("failed", "base: RuntimeError: out of memory")
        row = {"id": str(number), "prompt": prompt, "seed": number, "video": video, "status": status[0]}
        rows.append(row | {"error": status[1], "num_frames": 15, "fps": 16.0, "width": 64, "height": 64})
    pd.DataFrame(rows).to_parquet(folder / "manifest.parquet")
    return folder


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory, tiny_model: str, data: Path, generated: Path) -> Path:
    output = tmp_path_factory.mktemp("evaluation") / "evaluation.json"
    arguments = {"--model": tiny_model, "--data": data, "--generated": generated, "--output": output}
    load_job("evaluate").main([str(word) for pair in arguments.items() for word in pair] + ["--max-clips", "2"])
    return output


def test_the_evaluation_holds_what_scripts_rely_on(evaluation: Path) -> None:
    result = json.loads(evaluation.read_text())
    assert set(result) >= PROMISED
    # The failed video counts as wrong, the one with a prompt of another world not at all.
    assert (result["num_prompts"], result["num_failed"]) == (4, 1)
    assert result["colour_accuracy"] == 0.75
    assert result["shape_accuracy"] == 0.5
    assert [row["correct"] for row in result["prompts"]] == [True, True, False, False]
    assert result["motion_smoothness"] > 0.85
    assert result["ceilings"]["colour_accuracy"] == result["ceilings"]["shape_accuracy"] == 1
    assert {name: part["num_clips"] for name, part in result["corpora"].items()} == {"captioned": 2, "unlabeled": 2}
    assert all(0 < result[key] < 100 for key in PROMISED if key.endswith("_db"))


def test_a_fresh_decoder_and_interpolator_equal_their_baselines(evaluation: Path) -> None:
    result = json.loads(evaluation.read_text())
    assert result["decoder_psnr_db"] == pytest.approx(result["image_decoder_psnr_db"], abs=0.05)
    assert result["interpolation_psnr_db"] == pytest.approx(result["blend_psnr_db"], abs=0.05)


def test_evaluating_again_does_nothing(evaluation: Path, tiny_model: str, data: Path, generated: Path, capsys) -> None:
    arguments = {"--model": tiny_model, "--data": data, "--generated": generated, "--output": evaluation}
    load_job("evaluate").main([str(word) for pair in arguments.items() for word in pair] + ["--max-clips", "2"])
    assert "up to date" in capsys.readouterr().out


def test_held_out_data_is_found_in_every_layout(data: Path, tiny_model: str, tiny, tmp_path: Path) -> None:
    whole = find_held_out(str(data), tiny_model, tiny, max_clips=3)
    assert {name: len(clips) for name, clips in whole.corpora.items()} == {"captioned": 3, "unlabeled": 3}
    assert whole.prompts is None
    assert whole.corpora["captioned"][0].caption
    assert whole.corpora["captioned"][0].read().shape == (tiny.num_output_frames, tiny.resolution, tiny.resolution, 3)
    plain = find_held_out(str(data / "held_out" / "unlabeled"), tiny_model, tiny, max_clips=100)
    assert list(plain.corpora) == ["unlabeled"]
    with pytest.raises(UserError, match="not exist"):
        find_held_out(str(tmp_path / "none"), tiny_model, tiny, 1)
    (tmp_path / "notes.txt").write_text("no video")
    with pytest.raises(UserError, match="no video"):
        find_held_out(str(tmp_path), tiny_model, tiny, 1)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_held_out_captions_of_every_format_are_read(data: Path, tiny_model: str, tiny, tmp_path: Path, suffix) -> None:
    folder = tmp_path / "captioned"
    shutil.copytree(data / "held_out" / "captioned", folder)
    table = folder / "captions.parquet"
    captions = pd.read_parquet(table).head(3)
    captions.to_parquet(table)
    expected = find_held_out(str(folder), tiny_model, tiny, max_clips=10).corpora["captioned"]
    table.unlink()
    if suffix == "csv":
        captions.to_csv(folder / "captions.csv", index=False)
    else:
        captions.to_json(folder / "captions.jsonl", orient="records", lines=True)
    found = find_held_out(str(folder), tiny_model, tiny, max_clips=10).corpora["captioned"]
    assert [(clip.source, clip.caption) for clip in found] == [(clip.source, clip.caption) for clip in expected]
    assert [clip.caption for clip in found] == list(captions["caption"])


def test_latents_of_the_same_encoder_only_are_evaluated(latents_table: str, tiny_model: str, tiny, tmp_path) -> None:
    held_out = find_held_out(latents_table, tiny_model, tiny, max_clips=2)
    (clips,) = held_out.corpora.values()
    assert clips[0].read().dtype == np.uint8
    shutil.copytree(latents_table, tmp_path / "table")
    manifest = json.loads((tmp_path / "table" / "manifest.json").read_text())
    (tmp_path / "table" / "manifest.json").write_text(json.dumps({**manifest, "encoder_fingerprint": "0" * 20}))
    with pytest.raises(UserError, match="encoder"):
        find_held_out(str(tmp_path / "table"), tiny_model, tiny, 2)


def test_a_folder_without_a_manifest_is_no_generation_run(tiny_model: str, data: Path, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "x.mp4").write_bytes(b"")
    arguments = ["--model", tiny_model, "--data", str(data), "--output", str(tmp_path / "o")]
    with pytest.raises(UserError, match=r"manifest\.parquet"):
        load_job("evaluate").main([*arguments, "--generated", str(tmp_path)])


def _clip(path: Path, caption: str) -> HeldOutClip:
    return HeldOutClip(str(path), caption, lambda: shared_decoder().read_frames(str(path), range(15), 64))


def test_what_cannot_be_read_is_counted_and_stops_nothing(
    generated: Path, tiny_model: str, tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, hollow = generated / "videos" / "0.mp4", tmp_path / "hollow.mp4"
    hollow.write_bytes(without_frames(good.read_bytes()))
    caption = "a red circle moving left"
    held_out = HeldOut(None, {"one": [_clip(good, caption), _clip(hollow, caption)], "none": [_clip(hollow, caption)]})
    rows = pd.read_parquet(generated / "manifest.parquet").to_dict("records")[:2]
    rows[1]["video"] = str(tmp_path / "gone.mp4")
    result = evaluate(tiny, tiny_model, held_out, rows)

    assert {name: (part["num_clips"], part["num_unreadable"]) for name, part in result["corpora"].items()} == {
        "one": (1, 1),
        "none": (0, 1),
    }
    assert result["corpora"]["none"]["decoder_psnr_db"] is None
    assert result["decoder_psnr_db"] == result["corpora"]["one"]["decoder_psnr_db"] > 0
    assert (result["num_prompts"], result["num_failed"], result["num_unreadable"]) == (2, 1, 2)
    assert [row["status"] for row in result["prompts"]] == ["ok", "failed"]
    assert result["ceilings"]["num_clips"] == 1
    assert "hollow.mp4" in caplog.text
    assert "gone.mp4" in caplog.text


def test_without_frames_between_key_frames_interpolation_is_the_identity(tiny, tmp_path: Path) -> None:
    config = tiny.model_copy(update={"temporal_factor": 1})
    save_random(str(tmp_path), config)
    frames = render_clip(Attributes("red", "circle", "left"), seed=1, num_frames=config.num_output_frames)
    measured = measure_stages([frames], tmp_path, config.temporal_factor)
    assert measured.decoder_psnr_db > 0
    assert np.isnan(measured.interpolation_psnr_db)


@pytest.fixture
def run(data: Path, generated: Path, tiny_model: str, tmp_path: Path) -> tuple[list[str], Path]:
    """Return the arguments of an evaluation on data with two prompts, and the folder of videos that it is given."""
    shutil.copytree(data / "held_out" / "unlabeled", tmp_path / "held_out" / "unlabeled")
    prompts = pd.read_parquet(generated / "manifest.parquet")[["id", "prompt", "seed"]][:2]
    prompts.to_parquet(tmp_path / "held_out" / "prompts.parquet")
    arguments = ["--model", tiny_model, "--data", str(tmp_path), "--output", str(tmp_path / "o")]
    return [*arguments, "--generated", str(tmp_path / "made")], tmp_path / "made"


@pytest.mark.parametrize(
    ("settings", "count", "words"),
    [
        (["base.sampling.num_inference_steps=9"], 2, "another model or with other settings"),
        ([], 1, "lack 1 of the prompts .* first is '1'"),
    ],
)
def test_videos_of_other_settings_and_unfinished_runs_are_refused(
    run, settings: list[str], count: int, words: str, tiny_model: str, generated: Path
) -> None:
    arguments, made = run
    requests = read_requests(str(made.parent / "held_out" / "prompts.parquet"))
    rows = {row["id"]: row for row in pd.read_parquet(generated / "manifest.parquet").to_dict("records")[:count]}
    maker = model_fingerprint(tiny_model, [read_config(tiny_model, settings).model_dump_json()])
    write_manifest(str(made), requests, rows, maker)
    with pytest.raises(UserError, match=words):
        load_job("evaluate").main(arguments)
    assert not (made.parent / "o").exists()
