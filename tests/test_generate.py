"""Batch generation end to end on an untrained model: manifest, failed rows, resume, and bit-equality in process."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.numpy import load_file, save

from pipelines.generate.fingerprint import model_fingerprint
from pipelines.generate.manifest import MANIFEST_SCHEMA, finished_rows
from pipelines.generate.model import read_config
from pipelines.generate.payload import needed_after
from pipelines.generate.pipeline import GenerateOptions, generate
from pipelines.generate.prompts import read_requests
from pipelines.generate.workers import BLOCK_SCHEMA, DecodeAndWriteActor, Prepare, StageActor, StageSpec
from tests.conftest import load_job
from videogen.data.video import probe
from videogen.errors import UserError
from videogen.stages import stage_class

FAST = ("base.sampling.num_inference_steps=2", "reference.sampling.num_inference_steps=2")
PROMPTS = ["a red circle moving left", "a blue square moving up", "a green triangle moving down", "a cat"]


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: str, ray_cluster: None) -> Path:
    """Generate six rows, one of which has a broken reference image and one a good one; return the folder."""
    folder = tmp_path_factory.mktemp("generate")
    rows = pd.DataFrame(
        {
            "id": ["zero", "one", "two", "three", "broken", "given"],
            "prompt": [*PROMPTS, "a red circle moving right", "a red circle moving left"],
            "seed": pd.array([10, 11, 12, 13, None, 10], dtype="Int64"),
            "reference_image": [None, None, None, None, b"this is no image", _png()],
            "unrelated": range(6),
        }
    )
    rows.to_parquet(folder / "prompts.parquet")
    arguments = ["--model", tiny_model, "--prompts", f"{folder}/prompts.parquet", "--output", f"{folder}/out"]
    load_job("generate").main([*arguments, "--save-intermediates", "--set", *FAST])
    return folder


@pytest.fixture(scope="module")
def rows(run: Path) -> dict[str, dict]:
    return {row["id"]: row for row in pq.read_table(run / "out" / "manifest.parquet").to_pylist()}


def test_the_manifest_has_exactly_the_promised_columns_in_the_order_of_the_prompts(run: Path) -> None:
    table = pq.read_table(run / "out" / "manifest.parquet")
    assert table.column_names == MANIFEST_SCHEMA.names
    assert " ".join(table.column_names) == "id prompt seed video status error num_frames fps width height"
    assert table["id"].to_pylist() == ["zero", "one", "two", "three", "broken", "given"]


def test_videos_are_what_the_manifest_says(run: Path, rows: dict[str, dict], tiny) -> None:
    for name in ("zero", "one", "two", "three", "given"):
        row = rows[name]
        assert (row["status"], row["error"]) == ("ok", "")
        assert row["video"] == str(run / "out" / "videos" / f"{name}.mp4")
        video = probe(row["video"])
        assert (video.num_frames, video.fps, video.width, video.height) == tuple(
            row[key] for key in ("num_frames", "fps", "width", "height")
        )
        assert video.num_frames == tiny.num_output_frames


def test_a_row_that_fails_says_why_and_stops_no_other(rows: dict[str, dict]) -> None:
    assert rows["broken"]["status"] == "failed"
    assert rows["broken"]["video"] == ""
    assert "reference_image" in rows["broken"]["error"]


def test_videos_are_bit_equal_to_the_pipeline_alone_and_in_a_batch_of_four(
    run: Path, rows: dict[str, dict], tiny_model: str
) -> None:
    from pipelines.generate.model import model_folder
    from videogen.pipeline import VideoGenPipeline

    with model_folder(tiny_model, read_config(tiny_model, FAST)) as folder:
        pipe = VideoGenPipeline.from_pretrained(folder)
    together = pipe(PROMPTS, seed=[10, 11, 12, 13]).frames
    alone = pipe(PROMPTS[2], seed=12).frames[0]
    np.testing.assert_array_equal(alone, together[2])
    for name, frames in zip(("zero", "one", "two", "three"), together, strict=True):
        # Frames, not files: the H.264 encoder may differ by a bit between two processes.
        made = load_file(run / "out" / "intermediates" / f"{name}.safetensors")["decode.frames"]
        np.testing.assert_array_equal(made, frames)
        assert Path(rows[name]["video"]).stat().st_size > 0


def test_a_given_reference_image_is_used(run: Path, tiny) -> None:
    drawn, given = (load_file(run / "out" / "intermediates" / f"{name}.safetensors") for name in ("zero", "given"))
    size = tiny.resolution
    assert given["reference.reference_image"].shape == (size, size, 3)
    assert (given["reference.reference_image"] == 90).all()
    assert (drawn["reference.reference_image"] != 90).any()


def test_intermediates_hold_what_every_stage_made(run: Path, tiny) -> None:
    arrays = load_file(run / "out" / "intermediates" / "one.safetensors")
    small, large = tiny.latent_sizes
    assert arrays["base.latents"].shape[0::2] == (tiny.num_frames, small)
    assert arrays["upsample.latents"].shape[0::2] == (tiny.num_frames, large)
    assert arrays["interpolate.latents"].shape[0::2] == (tiny.num_output_frames, large)


def test_run_again_only_makes_what_is_missing(run: Path, tiny_model: str) -> None:
    videos = run / "out" / "videos"
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in videos.iterdir()}
    frames = load_file(run / "out" / "intermediates" / "two.safetensors")["decode.frames"]
    (videos / "two.mp4").unlink()
    options = GenerateOptions(overrides=FAST, batch_size=1, save_intermediates=True)
    result = generate(tiny_model, str(run / "prompts.parquet"), str(run / "out"), options)
    assert (result.num_skipped, result.num_failed) == (4, 1)
    after = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in videos.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"two.mp4"}
    made = load_file(run / "out" / "intermediates" / "two.safetensors")["decode.frames"]
    np.testing.assert_array_equal(made, frames)


def test_what_is_done_is_done_for_this_model_and_these_requests_only(run: Path, tiny_model: str) -> None:
    output, config = str(run / "out"), read_config(tiny_model, FAST)
    requests = read_requests(str(run / "prompts.parquet"))
    maker = model_fingerprint(tiny_model, [config.model_dump_json()])
    assert set(finished_rows(output, requests, maker, True)) == {"zero", "one", "two", "three", "given"}
    other = model_fingerprint(tiny_model, [read_config(tiny_model).model_dump_json()])
    assert finished_rows(output, requests, other, True) == {}

    changed = pd.read_parquet(run / "prompts.parquet")
    changed["negative_prompt"] = ["noise", None, None, None, None, None]
    changed.to_parquet(run / "changed.parquet")
    assert "zero" not in finished_rows(output, read_requests(str(run / "changed.parquet")), maker, True)


def test_a_stage_that_fails_on_one_row_of_a_batch_loses_only_that_row(tiny_model: str, tmp_path: Path, tiny) -> None:
    names = tiny.stage_names()
    needed = needed_after([stage_class(name).consumes for name in names])
    position = names.index("interpolate")
    spec = StageSpec("interpolate", tiny_model, tiny, "cpu", frozenset(needed[position]), keep=False)
    block = Prepare(frozenset())(pa.table({"prompt": PROMPTS[:3]})).to_pylist()
    shape = (tiny.num_frames, tiny.autoencoder.model.latent_channels, tiny.latent_sizes[-1], tiny.latent_sizes[-1])
    for row in block:
        row["payload"] = save({"latents": np.zeros(shape, np.float32)})
    block[1]["payload"] = save({"latents": np.zeros((1, 2), np.float32)})
    StageActor(spec).run(block)
    assert [bool(row["error"]) for row in block] == [False, True, False]
    assert block[1]["error"].startswith("interpolate: ")

    last = DecodeAndWriteActor(StageSpec("decode", tiny_model, tiny, "cpu", frozenset(), False), str(tmp_path), 16.0)
    manifest = last(pa.Table.from_pylist(block, schema=BLOCK_SCHEMA))
    assert manifest.schema == MANIFEST_SCHEMA
    assert manifest["status"].to_pylist() == ["ok", "failed", "ok"]


def test_settings_that_only_training_could_change_are_refused(tiny_model: str) -> None:
    assert read_config(tiny_model, ["base.sampling.num_inference_steps=3"]).base.sampling.num_inference_steps == 3
    with pytest.raises(UserError, match="trained with"):
        read_config(tiny_model, ["base.reference_noise=7"])


def test_fewer_frames_between_key_frames_can_be_asked_for_and_more_cannot(tiny_model: str) -> None:
    assert read_config(tiny_model, ["temporal_factor=1"]).num_output_frames == 8
    with pytest.raises(UserError, match=r"temporal_factor 4 .* at most 2"):
        read_config(tiny_model, ["temporal_factor=4"])
