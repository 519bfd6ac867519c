"""Encoding on a cluster: right latents, every input accounted for, and nothing done twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from pipelines import cluster
from pipelines import encode as encoding
from pipelines._encode_unit import EncodeUnit, Unit, decode_clip, decode_unit
from pipelines._encoders import find_encoders
from pipelines.encode import encode, find_autoencoder
from tests.conftest import load_job
from videogen import storage
from videogen.config import apply_overrides, load_preset
from videogen.data import Clip, ClipSpec, Failure, LatentsTable, plan_clips, read_frames, resize_frames
from videogen.data.isolated import IsolatedDecoder
from videogen.errors import UserError

LATENTS = ("latents_8", "latents_16", "prompt_embeds")


@pytest.fixture
def corpus(world_corpus: Path, tmp_path: Path) -> Path:
    """Return a copy of the captioned corpus that a test may damage."""
    return shutil.copytree(world_corpus, tmp_path / "corpus")


def contents(folder: str | Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_latents_are_those_of_a_direct_call(latents_table, tiny_model, world_corpus):
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel, CLIPTokenizer

    from videogen.models.text import encode_prompts

    vae = AutoencoderKL.from_pretrained(f"{tiny_model}/autoencoder").eval()
    tokenizer = CLIPTokenizer.from_pretrained(f"{tiny_model}/tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(f"{tiny_model}/text_encoder").eval()
    captions = pd.read_parquet(world_corpus / "captions.parquet").set_index("video")["caption"]
    table = LatentsTable.open(latents_table)
    for index in range(len(table)):
        row = table.row(index, (*LATENTS, "source", "caption"))
        assert row["caption"] == captions[Path(row["source"]).name]
        frames = read_frames(row["source"], range(15), 64)
        for size in (8, 16):
            pixels = torch.from_numpy(resize_frames(frames, size * 4)).permute(0, 3, 1, 2).float() / 127.5 - 1
            with torch.no_grad():
                expected = vae.encode(pixels).latent_dist.mean.numpy()
            assert np.allclose(row[f"latents_{size}"], expected, atol=2e-3, rtol=2e-3)
        embeds = encode_prompts(tokenizer, text_encoder, [row["caption"]])[0].numpy()
        assert np.allclose(row["prompt_embeds"], embeds, atol=4e-3, rtol=2e-3)


def test_latents_do_not_depend_on_how_clips_are_grouped(latents_table, world_corpus, tiny, tiny_model, tmp_path):
    job = encoding.prepare(str(world_corpus), str(tmp_path), tiny, tiny_model)
    clips = plan_clips(job.videos, job.spec, job.captions).clips
    encoder = EncodeUnit(job.encoders, tiny.latent_sizes, tiny.vae_scale_factor, job.output)
    for index, clip in enumerate(clips):
        unit = Unit(f"alone-{index}", (clip,))
        row = pa.table({name: [value] for name, value in unit.as_row().items()})
        encoder(decode_unit(row, (32, 64)))
        alone = pd.read_parquet(tmp_path / unit.shard_name).iloc[0]
        together = LatentsTable.open(latents_table).row(index, (*LATENTS, "clip_id"))
        assert alone["clip_id"] == together["clip_id"]
        for name in LATENTS:
            values = np.frombuffer(alone[name], np.float16).reshape(alone[f"{name}_shape"])
            assert np.array_equal(values, together[name])


def test_a_corrupt_video_costs_only_its_own_clips(corpus, latents_table, tiny, tiny_model, ray_cluster, tmp_path):
    (corpus / "clip_1.mp4").write_bytes(b"this is no video")
    good = (corpus / "clip_3.mp4").read_bytes()
    # The header stays whole, so that planning believes it; the frames are gone.
    (corpus / "clip_3.mp4").write_bytes(good[: len(good) // 3] + bytes(len(good) - len(good) // 3))
    result = encode(str(corpus), str(tmp_path / "table"), tiny, tiny_model)
    assert (result.planned, result.ok, result.failed) == (6, 4, 2)
    errors = pd.read_parquet(tmp_path / "table" / "errors.parquet")
    assert list(errors.columns) == ["uri", "stage", "error", "attempt"]
    assert {Path(uri).name: stage for uri, stage in zip(errors["uri"], errors["stage"], strict=True)} == {
        "clip_1.mp4": "probe",
        "clip_3.mp4": "decode",
    }
    assert errors["error"].str.len().min() > 10
    table, whole = LatentsTable.open(result.uri), LatentsTable.open(latents_table)
    for index, same in enumerate((0, 2, 4, 5)):
        assert np.array_equal(table.row(index, LATENTS)["latents_16"], whole.row(same, LATENTS)["latents_16"])
    # What failed is part of the record: the next run neither tries it again nor forgets it.
    again = encode(str(corpus), result.uri, tiny, tiny_model)
    assert (again.failed, again.encoded_now) == (2, 0)


def test_encoding_again_does_nothing(latents_table, world_corpus, tiny, tiny_model, monkeypatch):
    before = {path: (path.stat().st_mtime_ns) for path in Path(latents_table).rglob("*")}

    def connect():
        pytest.fail("a finished table needs no cluster")

    monkeypatch.setattr(cluster, "connect", connect)
    captions = str(world_corpus / "captions.parquet")
    result = encode(str(world_corpus), latents_table, tiny, f"{tiny_model}/autoencoder", captions)
    assert (result.ok, result.encoded_now) == (6, 0)
    shards = {path: time_ns for path, time_ns in before.items() if path.is_file()}
    assert {path: path.stat().st_mtime_ns for path in shards} == shards


def test_a_new_video_leaves_earlier_units_alone(world_corpus, tiny, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "_CLIPS_PER_UNIT", 2)
    job = encoding.prepare(str(world_corpus), str(tmp_path), tiny, tiny_model)
    clips = plan_clips(job.videos, job.spec, job.captions).clips
    before, after = (encoding.make_units(part, job) for part in (clips[:5], clips))
    assert [unit.unit_id for unit in before[:2]] == [unit.unit_id for unit in after[:2]]
    assert before[2].unit_id != after[2].unit_id
    assert [clip for unit in after for clip in unit.clips] == clips


def test_units_are_bounded_in_bytes(world_corpus, tiny, tiny_model, tmp_path):
    job = encoding.prepare(str(world_corpus), str(tmp_path), tiny, tiny_model)
    clips = [Clip(str(index), "clip.mp4", tuple(range(61)), 8.0, 512, 512) for index in range(10)]
    large = replace(job, config=load_preset("paper"), spec=ClipSpec(61, 32.0, 512))
    assert [len(unit.clips) for unit in encoding.make_units(clips, large)] == [1] * 10
    assert [len(unit.clips) for unit in encoding.make_units(clips, job)] == [10]


def test_a_killed_encoding_continues(world_corpus, latents_table, tiny, tiny_model, ray_cluster, tmp_path, monkeypatch):
    import ray

    output = tmp_path / "table"
    script = (
        "import sys; from pipelines import encode; from videogen.config import load_preset; "
        "encode._CLIPS_PER_UNIT = 1; "
        "encode.encode(*sys.argv[1:3], load_preset('tiny'), sys.argv[3], options=encode.EncodeOptions(encoders=1))"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", script, str(world_corpus), str(output), tiny_model],
        env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
        cwd=Path(__file__).parent.parent,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 90
    while not list(output.glob("shards/*.parquet")):
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert not (output / "manifest.json").exists()
    with pytest.raises(UserError, match=r"manifest\.json"):
        LatentsTable.open(str(output))
    monkeypatch.setattr(encoding, "_CLIPS_PER_UNIT", 1)
    result = encode(str(world_corpus), str(output), tiny, tiny_model)
    assert result.ok == 6
    assert result.encoded_now < 6
    assert not list(output.rglob("*.partial"))
    table, whole = LatentsTable.open(str(output)), LatentsTable.open(latents_table)
    for index in range(6):
        assert np.array_equal(table.row(index, LATENTS)["latents_8"], whole.row(index, LATENTS)["latents_8"])


def test_the_manifest_says_what_made_the_table(latents_table, tiny_model, tiny):
    manifest = json.loads(Path(latents_table, "manifest.json").read_text())
    assert manifest["counts"] == {"planned": 6, "ok": 6, "failed": 0}
    assert manifest["latent_sizes"] == [8, 16]
    assert (manifest["num_frames"], manifest["fps"]) == (15, 16.0)
    assert manifest["clip"]["decoder"].startswith("decord")
    encoders = find_encoders(tiny_model, tiny, captioned=True)
    assert manifest["encoder_fingerprint"] == encoders.autoencoder_fingerprint
    assert manifest["text_encoder_fingerprint"] == encoders.text_encoder_fingerprint
    for shard in manifest["shards"]:
        assert Path(latents_table, shard["name"]).stat().st_size == shard["bytes"]
    assert len(pd.read_parquet(Path(latents_table, "errors.parquet"))) == 0


def test_camera_clips_from_bucket_to_bucket(camera_corpus, tiny, tiny_model, ray_cluster, s3):
    storage.upload(camera_corpus, f"{s3}/videos")
    storage.upload(f"{tiny_model}/autoencoder", f"{s3}/model/autoencoder")
    result = encode(f"{s3}/videos", f"{s3}/latents", tiny, f"{s3}/model")
    assert (result.ok, result.failed) == (4, 0)
    table = LatentsTable.open(f"{s3}/latents")
    assert not table.has_captions
    row = table.row(3, ("latents_16", "frames", "source", "fps", "width"))
    assert row["source"].startswith(f"{s3}/videos/")
    assert (row["frames"].shape, row["width"]) == ((15, 64, 64, 3), 176)
    assert row["fps"] == pytest.approx(30000 / 1001 / 2, rel=1e-6)


def test_a_hanging_video_is_tried_twice_and_given_up(tmp_path):
    pipe = tmp_path / "hangs.mp4"
    os.mkfifo(pipe)
    clip = Clip("id", str(pipe), (0,), 16.0, 64, 64)
    with IsolatedDecoder(limit_s=0.3) as decoder:
        failure = decode_clip(decoder, clip, 64)
    assert isinstance(failure, Failure)
    assert (failure.stage, failure.attempt) == ("decode", 2)
    assert "stopped after" in failure.error


def test_nothing_but_corrupt_videos_is_refused(tiny, tiny_model, tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"this is no video")
    with pytest.raises(UserError, match=r"None of the 1 videos.*broken\.mp4"):
        encode(str(tmp_path / "videos"), str(tmp_path / "table"), tiny, tiny_model)
    assert len(pd.read_parquet(tmp_path / "table" / "errors.parquet")) == 1
    assert not (tmp_path / "table" / "manifest.json").exists()


def test_a_table_of_another_encoder_is_not_overwritten(latents_table, world_corpus, tiny, tiny_model, tmp_path):
    table = shutil.copytree(latents_table, tmp_path / "table")
    manifest = json.loads((table / "manifest.json").read_text())
    (table / "manifest.json").write_text(json.dumps(manifest | {"encoder_fingerprint": "another"}))
    before = contents(table)
    with pytest.raises(UserError, match=r"latents of another encoder \(another\)"):
        encode(str(world_corpus), str(table), tiny, tiny_model)
    assert contents(table) == before


def test_an_autoencoder_that_does_not_fit_is_refused(tiny, tiny_model, tmp_path):
    coarser = apply_overrides(tiny, ["autoencoder.model.block_out_channels=[32,32,32,32]"])
    with pytest.raises(UserError, match="1/4 of the pixels, but preset 'tiny' is built on 1/8"):
        find_encoders(tiny_model, coarser, captioned=False)
    with pytest.raises(UserError, match="of 4 channels"):
        find_encoders(tiny_model, apply_overrides(tiny, ["autoencoder.model.latent_channels=16"]), captioned=False)
    with pytest.raises(UserError, match="not an AutoencoderKL"):
        find_encoders(f"{tiny_model}/text_encoder", tiny, captioned=False)
    with pytest.raises(UserError, match="does not exist"):
        find_encoders(str(tmp_path / "missing"), tiny, captioned=False)
    with pytest.raises(UserError, match=r"no config\.json"):
        find_encoders(str(Path(__file__).parent), tiny, captioned=False)


def test_captions_need_a_text_encoder(tiny, tiny_model, tmp_path):
    shutil.copytree(f"{tiny_model}/autoencoder", tmp_path / "model" / "autoencoder")
    find_encoders(str(tmp_path / "model"), tiny, captioned=False)
    with pytest.raises(UserError, match="no 'tokenizer' folder"):
        find_encoders(str(tmp_path / "model"), tiny, captioned=True)


def test_the_autoencoder_is_found_beside_the_output(tiny, tiny_model, tmp_path):
    output = tmp_path / "latents" / "captioned"
    assert find_autoencoder(str(output), tiny) is None
    shutil.copytree(f"{tiny_model}/autoencoder", tmp_path / "model" / "autoencoder")
    assert find_autoencoder(str(output), tiny) == str(tmp_path / "model" / "autoencoder")
    assert find_autoencoder(str(tmp_path / "latents"), tiny) == str(tmp_path / "model" / "autoencoder")
    named = apply_overrides(tiny, ["autoencoder.pretrained=some/model"])
    assert find_autoencoder(str(output), named) == "some/model"


def test_the_job_refuses_no_encoders(world_corpus, tmp_path):
    arguments = ["--input", str(world_corpus), "--output", str(tmp_path), "--preset", "tiny", "--encoders", "0"]
    with pytest.raises(UserError, match="--encoders is 0"):
        load_job("encode_latents").main(arguments)
