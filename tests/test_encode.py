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
import pyarrow.parquet as pq
import pytest
import torch

from pipelines import cluster
from pipelines.cluster import pools
from pipelines.encode import pipeline as encoding
from pipelines.encode import workers
from pipelines.encode.encoders import find_encoders
from pipelines.encode.pipeline import encode
from pipelines.encode.plan import EncodeOptions, find_autoencoder, prepare
from pipelines.encode.workers import EncodeActor, decode_batch, decode_clips, encode_frames
from pipelines.ingest.pipeline import IngestOptions, ingest
from pipelines.runner.plan import BatchLimits, write_plan
from tests.conftest import load_job
from videogen import storage
from videogen.data.curation import Policy
from videogen.data.datasets.clips_schema import IngestSpec
from videogen.data.datasets.clips_table import ClipsTable
from videogen.data.datasets.latents_table import LatentsTable, encoder_fingerprint
from videogen.data.isolation import IsolatedDecoder
from videogen.data.tables import Outcome, PartRecord
from videogen.data.video import VideoError, read_frames, resize_frames
from videogen.errors import UserError
from videogen.stages import apply_overrides

LATENTS = ("latents_8", "latents_16", "prompt_embeds")


@pytest.fixture
def corpus(world_corpus: Path, tmp_path: Path) -> Path:
    """Return a copy of the captioned corpus that a test may damage."""
    return shutil.copytree(world_corpus, tmp_path / "corpus")


@pytest.fixture
def as_beside_gpus(monkeypatch):
    """Let decoding and encoding be two operators, as where there are GPUs; the actors here do without one."""

    def shares(num_batches, memory_bytes, actors=None, on_gpus=None):
        share = pools.shares(num_batches, memory_bytes, actors, on_gpus=True)
        assert share.task is not None
        return replace(share, actor={**share.actor, "num_gpus": None})

    monkeypatch.setattr(encoding, "shares", shares)


def contents(folder: str | Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_latents_are_those_of_a_direct_call(latents_table, tiny_model, world_corpus):
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel, CLIPTokenizer

    from videogen.stages.text.network import encode_prompts

    vae = AutoencoderKL.from_pretrained(f"{tiny_model}/autoencoder").eval()
    tokenizer = CLIPTokenizer.from_pretrained(f"{tiny_model}/tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(f"{tiny_model}/text_encoder").eval()
    captions = pd.read_parquet(world_corpus / "captions.parquet").set_index("video")["caption"]
    table = LatentsTable.open(latents_table)
    for index in range(len(table)):
        row = table.row(index, (*LATENTS, "latents_8_logvar", "latents_16_logvar", "source", "caption"))
        assert row["caption"] == captions[Path(row["source"]).name]
        frames = read_frames(row["source"], range(15), 64)
        for size in (8, 16):
            pixels = torch.from_numpy(resize_frames(frames, size * 4)).permute(0, 3, 1, 2).float() / 127.5 - 1
            with torch.no_grad():
                posterior = vae.encode(pixels).latent_dist
            assert np.allclose(row[f"latents_{size}"], posterior.mean.numpy(), atol=2e-3, rtol=2e-3)
            assert np.allclose(row[f"latents_{size}_logvar"], posterior.logvar.numpy(), atol=2e-3, rtol=2e-3)
        embeds = encode_prompts(tokenizer, text_encoder, [row["caption"]])[0].numpy()
        assert np.allclose(row["prompt_embeds"], embeds, atol=4e-3, rtol=2e-3)


def planned_items(latents_table: str, captioned: bool = True) -> list[pa.RecordBatch]:
    clips = ClipsTable.open(f"{latents_table}/clips")
    return list(encoding.planned_clips(clips, "true", captioned))


def test_latents_do_not_depend_on_how_clips_are_grouped(latents_table, world_corpus, tiny, tiny_model, tmp_path):
    job = prepare(str(world_corpus), str(tmp_path), tiny, tiny_model)
    units = write_plan(job.output, iter(planned_items(latents_table)), job.identity, BatchLimits(items=1))
    assert len(units) == 6
    encoder = EncodeActor(job.task)
    for index, unit in enumerate(units):
        encoder(decode_batch(pa.Table.from_pylist([unit.as_row()]), job.task))
        (part,) = (tmp_path / "parts").glob(f"{unit.unit_id}-*.parquet")
        alone = pd.read_parquet(part).iloc[0]
        together = LatentsTable.open(latents_table).row(index, (*LATENTS, "clip_id"))
        assert alone["clip_id"] == together["clip_id"]
        for name in LATENTS:
            values = np.frombuffer(alone[name], alone[f"{name}_dtype"]).reshape(alone[f"{name}_shape"])
            assert np.array_equal(values, together[name])


def test_latents_that_float16_cannot_hold_are_a_failure_and_no_row(
    latents_table, world_corpus, tiny, tiny_model, tmp_path, monkeypatch
):
    job = prepare(str(world_corpus), str(tmp_path), tiny, tiny_model)
    (unit,) = write_plan(job.output, iter(planned_items(latents_table)), job.identity, BatchLimits(items=2), limit=1)
    factors = iter([1e6, 1, 1, 1])  # of two clips at two sizes

    def overflow(vae, frames):
        mean, logvar = encode_frames(vae, frames)
        return mean * next(factors), logvar

    monkeypatch.setattr(workers, "encode_frames", overflow)
    done = EncodeActor(job.task)(decode_batch(pa.Table.from_pylist([unit.as_row()]), job.task))
    record = PartRecord.from_json(done["record"][0].as_py())
    assert [(one.status, one.stage) for one in record.outcomes] == [("failed", "encode"), ("ok", "")]
    assert "latents_8 holds numbers that float16 cannot" in record.outcomes[0].error
    assert record.rows == 1


def test_without_gpus_nothing_crosses_from_decoders_to_encoders(ray_cluster):
    alone = pools.shares(num_batches=100, memory_bytes=1 << 20)
    assert alone.task is None
    assert alone.actor["num_cpus"] == 1
    beside = pools.shares(num_batches=100, memory_bytes=1 << 20, on_gpus=True)
    assert beside.task is not None
    assert beside.actor["num_gpus"] == 1
    # Where there is no GPU yet, an autoscaler begins with one.
    assert beside.pool.min_size == 1


@pytest.mark.usefixtures("as_beside_gpus")
def test_a_corrupt_video_costs_only_its_own_clips(corpus, latents_table, tiny, tiny_model, ray_cluster, tmp_path):
    (corpus / "clip_1.mp4").write_bytes(b"this is no video")
    good = (corpus / "clip_3.mp4").read_bytes()
    # The header stays whole, so that planning believes it; the frames are gone.
    (corpus / "clip_3.mp4").write_bytes(good[: len(good) // 3] + bytes(len(good) - len(good) // 3))
    cut = (corpus / "clip_5.mp4").read_bytes()
    (corpus / "clip_5.mp4").write_bytes(cut[: len(cut) // 2])
    table = str(tmp_path / "table")
    load_job("encode_latents").main(["--input", str(corpus), "--output", table, "--autoencoder", tiny_model])
    errors = pd.read_parquet(tmp_path / "table" / "errors.parquet")
    assert list(errors.columns) == ["item_id", "uri", "stage", "error", "attempts", "log_tail"]
    assert {Path(uri).name: stage for uri, stage in zip(errors["uri"], errors["stage"], strict=True)} == {
        "clip_1.mp4": "probe",
        "clip_3.mp4": "decode",
        "clip_5.mp4": "probe",
    }
    assert errors["error"].str.len().min() > 10
    made, whole = LatentsTable.open(table), LatentsTable.open(latents_table)
    assert len(made) == 3
    for index, same in enumerate((0, 2, 4)):
        assert np.array_equal(made.row(index, LATENTS)["latents_16"], whole.row(same, LATENTS)["latents_16"])
    # What failed is part of the record: the next run neither tries it again nor forgets it.
    again = encode(str(corpus), table, tiny, tiny_model)
    assert (again.planned, again.ok, again.failed, again.encoded_now) == (6, 3, 3, 0)


def test_encoding_again_does_nothing(latents_table, world_corpus, tiny, tiny_model, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in Path(latents_table).rglob("*") if path.is_file()}

    def connect():
        pytest.fail("a finished table needs no cluster")

    monkeypatch.setattr(cluster, "connect", connect)
    captions = str(world_corpus / "captions.parquet")
    result = encode(str(world_corpus), latents_table, tiny, f"{tiny_model}/autoencoder", captions)
    assert (result.ok, result.encoded_now) == (6, 0)
    assert {path: path.stat().st_mtime_ns for path in Path(latents_table).rglob("*") if path.is_file()} == before


def test_only_new_and_replaced_videos_are_encoded(corpus, latents_table, tiny, tiny_model, ray_cluster, tmp_path):
    table = str(shutil.copytree(latents_table, tmp_path / "table"))
    (corpus / "clip_6.mp4").write_bytes((corpus / "clip_0.mp4").read_bytes())
    captions = pd.read_parquet(corpus / "captions.parquet")
    captions.loc[len(captions)] = ["clip_6.mp4", "a red circle moving left"]
    captions.to_parquet(corpus / "captions.parquet")
    # The copy of the corpus lies elsewhere, so this is the run that begins it.
    assert encode(str(corpus), table, tiny, tiny_model).encoded_now == 7
    (corpus / "clip_7.mp4").write_bytes((corpus / "clip_1.mp4").read_bytes())
    captions.loc[len(captions)] = ["clip_7.mp4", "a blue circle moving left"]
    captions.to_parquet(corpus / "captions.parquet")
    (corpus / "clip_2.mp4").write_bytes((corpus / "clip_3.mp4").read_bytes())
    result = encode(str(corpus), table, tiny, tiny_model)
    assert (result.planned, result.ok, result.encoded_now) == (8, 8, 2)
    opened = LatentsTable.open(table)
    rows = [opened.row(index, (*LATENTS, "source")) for index in range(8)]
    assert [Path(row["source"]).name for row in rows] == [f"clip_{index}.mp4" for index in range(8)]
    for name in ("latents_8", "latents_16"):
        assert np.array_equal(rows[6][name], rows[0][name])
        assert np.array_equal(rows[2][name], rows[3][name])
        assert not np.array_equal(rows[0][name], rows[3][name])


def test_a_video_replaced_behind_a_table_is_neither_encoded_nor_read(corpus, tiny, tiny_model, ray_cluster, tmp_path):
    clips = str(tmp_path / "clips")
    ingest(str(corpus), clips, IngestOptions(IngestSpec(tiny.num_output_frames, tiny.output_fps)))
    (corpus / "clip_4.mp4").write_bytes((corpus / "clip_5.mp4").read_bytes())
    result = encode(clips, str(tmp_path / "table"), tiny, tiny_model)
    assert (result.ok, result.failed) == (5, 1)
    errors = pd.read_parquet(tmp_path / "table" / "errors.parquet")
    assert "replaced since it was ingested" in errors["error"][0]

    table = LatentsTable.open(result.uri)
    assert table.row(3, ("frames",))["frames"].shape == (15, 64, 64, 3)
    (corpus / "clip_2.mp4").write_bytes((corpus / "clip_3.mp4").read_bytes())
    with pytest.raises(VideoError, match="was replaced since it was ingested"):
        table.row(2, ("frames",))


def test_losses_of_ingest_are_told_beside_those_of_encoding(
    world_corpus, latents_table, tiny, tiny_model, ray_cluster, tmp_path
):
    table = str(shutil.copytree(latents_table, tmp_path / "table"))
    assert len(pd.read_parquet(f"{table}/errors.parquet")) == 0
    # One more row of a manifest, so that the videos themselves stay where they are.
    rows = pd.read_parquet(world_corpus / "captions.parquet")
    rows["video"] = [str(world_corpus / name) for name in rows["video"]]
    (tmp_path / "text.mp4").write_bytes(b"this is no video")
    rows.loc[len(rows)] = [str(tmp_path / "text.mp4"), "a shape"]
    rows.to_parquet(tmp_path / "manifest.parquet")
    result = encode(str(tmp_path / "manifest.parquet"), table, tiny, tiny_model)
    assert (result.ok, result.failed, result.encoded_now) == (6, 1, 0)
    assert [Path(uri).name for uri in pd.read_parquet(f"{table}/errors.parquet")["uri"]] == ["text.mp4"]


def test_where_chooses_among_what_the_policy_keeps(corpus, tiny, tiny_model, ray_cluster, tmp_path):
    clips = str(tmp_path / "clips")
    spec = IngestSpec(tiny.num_output_frames, tiny.output_fps)
    ingest(str(corpus), clips, IngestOptions(spec, Policy({"first": "path < 'clip_3.mp4'"})))
    options = EncodeOptions(where="path <> 'clip_0.mp4' -- and no more")
    result = encode(clips, str(tmp_path / "table"), tiny, tiny_model, options=options)
    assert (result.ok, result.filtered) == (2, 4)
    options = EncodeOptions(where="path <> 'clip_0.mp4'", with_dropped=True)
    assert encode(clips, str(tmp_path / "table"), tiny, tiny_model, options=options).ok == 5


def test_where_is_checked_before_a_folder_is_looked_at(corpus, tiny, tiny_model, tmp_path):
    options = EncodeOptions(where="mottion > 1")
    with pytest.raises(UserError, match="--where"):
        encode(str(corpus), str(tmp_path / "table"), tiny, tiny_model, options=options)
    assert not (tmp_path / "table").exists()


def test_curated_clips_are_not_replaced(corpus, tiny, tiny_model, ray_cluster, tmp_path):
    spec = IngestSpec(tiny.num_output_frames, tiny.output_fps)
    ingest(
        str(corpus), str(tmp_path / "table" / "clips"), IngestOptions(spec, Policy({"first": "path < 'clip_3.mp4'"}))
    )
    with pytest.raises(UserError, match="rules of its own"):
        encode(str(corpus), str(tmp_path / "table"), tiny, tiny_model)


def test_a_version_that_a_manifest_gives_is_taken_on_trust(corpus, tiny, tiny_model, ray_cluster, tmp_path):
    rows = {"video": ["clip_0.mp4", "clip_4.mp4", "gone.mp4"], "caption": 3 * ["a"], "version": ["v1", "v1", "v1"]}
    pd.DataFrame(rows).to_csv(corpus / "manifest.csv", index=False)
    result = encode(str(corpus / "manifest.csv"), str(tmp_path / "table"), tiny, tiny_model)
    assert (result.ok, result.failed) == (2, 1)
    assert "gone.mp4" in pd.read_parquet(tmp_path / "table" / "errors.parquet")["uri"][0]
    # The file changed, its version did not: whoever gives versions answers for them.
    (corpus / "clip_4.mp4").write_bytes((corpus / "clip_5.mp4").read_bytes())
    assert encode(str(corpus / "manifest.csv"), result.uri, tiny, tiny_model).encoded_now == 0
    rows["version"][1] = "v2"
    pd.DataFrame(rows).to_csv(corpus / "manifest.csv", index=False)
    assert encode(str(corpus / "manifest.csv"), result.uri, tiny, tiny_model).encoded_now == 1


def test_units_are_bounded_in_bytes(world_corpus, tiny, tiny_model, tmp_path):
    job = prepare(str(world_corpus), str(tmp_path), tiny, tiny_model)
    assert encoding.clips_per_batch(job) == 32


def test_a_killed_encoding_continues(world_corpus, latents_table, tiny, tiny_model, ray_cluster, tmp_path, monkeypatch):
    import ray

    output = tmp_path / "table"
    script = (
        "import sys; from pipelines.encode import pipeline as encode; from videogen.stages import load_preset; "
        "encode.CLIPS_PER_BATCH = 1; "
        "encode.encode(*sys.argv[1:3], load_preset('tiny'), sys.argv[3], options=encode.EncodeOptions(encoders=1))"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", script, str(world_corpus), str(output), tiny_model],
        env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
        cwd=Path(__file__).parent.parent,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 90
    while not list(output.glob("parts/*.parquet")):
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert not (output / "manifest.json").exists()
    with pytest.raises(UserError, match=r"manifest\.json"):
        LatentsTable.open(str(output))
    monkeypatch.setattr(encoding, "CLIPS_PER_BATCH", 1)
    result = encode(str(world_corpus), str(output), tiny, tiny_model)
    assert result.ok == 6
    assert result.encoded_now < 6
    assert not list(output.rglob("*.partial"))
    table, whole = LatentsTable.open(str(output)), LatentsTable.open(latents_table)
    for index in range(6):
        assert np.array_equal(table.row(index, LATENTS)["latents_8"], whole.row(index, LATENTS)["latents_8"])


def test_the_manifest_says_what_made_the_table(latents_table, tiny_model, tiny):
    manifest = json.loads(Path(latents_table, "manifest.json").read_text())
    assert manifest["counts"] == {"planned": 6, "ok": 6, "filtered": 0, "failed": 0, "rows": 6}
    assert manifest["latent_sizes"] == [8, 16]
    assert (manifest["num_frames"], manifest["fps"]) == (15, 16.0)
    assert manifest["clip"]["decoder"].startswith("decord")
    encoders = find_encoders(tiny_model, tiny, captioned=True)
    assert manifest["encoder_fingerprint"] == encoders.autoencoder_fingerprint
    assert manifest["text_encoder_fingerprint"] == encoders.text_encoder_fingerprint
    for shard in manifest["shards"]:
        assert Path(latents_table, shard["name"]).stat().st_size == shard["bytes"]
    assert len(pd.read_parquet(Path(latents_table, "errors.parquet"))) == 0


def test_the_job_trains_an_autoencoder_first_from_bucket_to_bucket(camera_corpus, tiny, ray_cluster, s3, tmp_path):
    storage.upload(camera_corpus, f"{s3}/videos")
    few = [f"autoencoder.training.{setting}" for setting in ("steps=2", "batch_size=1", "warmup_steps=0")]
    captions = {path.name: f"what {path.stem} shows" for path in camera_corpus.glob("*.mp4")}
    told = pa.table({"video": list(captions), "caption": list(captions.values())})
    pq.write_table(told, tmp_path / "captions.parquet")
    storage.upload(tmp_path / "captions.parquet", f"{s3}/told/captions.parquet")
    command = ["--input", f"{s3}/videos", "--captions", f"{s3}/told/captions.parquet", "--output", f"{s3}/latents"]
    command += ["--set", *few]
    load_job("encode_latents").main(command)
    table = LatentsTable.open(f"{s3}/latents")
    assert len(table) == 4
    assert table.encoder_fingerprint == encoder_fingerprint(f"{s3}/latents/autoencoder")
    row = table.row(3, ("latents_16", "prompt_embeds", "frames", "source", "caption", "fps", "width"))
    assert row["source"].startswith(f"{s3}/videos/")
    assert row["caption"] == captions[row["source"].rpartition("/")[2]]
    # 176 pixels wide, and shown as 193.
    assert (row["frames"].shape, row["width"]) == ((15, 64, 64, 3), 193)
    assert row["fps"] == pytest.approx(30000 / 1001 / 2, rel=1e-6)


def test_a_hanging_video_is_given_up(world_corpus, tiny, tiny_model, tmp_path):
    pipe = tmp_path / "hangs.mp4"
    os.mkfifo(pipe)
    status = pipe.stat()
    item = {"source": str(pipe), "version": f"0-{status.st_mtime}", "frame_indices": [0], "width": 64, "height": 64}
    task = prepare(str(world_corpus), str(tmp_path / "table"), tiny, tiny_model).task
    items = [item | {"item_id": str(number)} for number in range(50)]
    started = time.monotonic()
    with IsolatedDecoder() as decoder:
        outcomes = [outcome for _, outcome in decode_clips(decoder, items, replace(task, limit_s=0.3))]
    assert time.monotonic() - started < 10
    assert all(isinstance(outcome, Outcome) for outcome in outcomes)
    assert {(outcome.status, outcome.stage) for outcome in outcomes} == {("failed", "decode")}
    # Together, and twice the first alone: then its time is used up.
    assert [outcome.attempts for outcome in outcomes] == [2] + 49 * [0]
    assert "stopped after 0." in outcomes[0].error
    assert outcomes[-1].error == "not attempted: the time budget of 1 s for this video is exhausted"


def test_nothing_but_corrupt_videos_is_refused(tiny, tiny_model, tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"this is no video")
    with pytest.raises(UserError, match=r"None of the 1 videos.*broken\.mp4"):
        encode(str(tmp_path / "videos"), str(tmp_path / "table"), tiny, tiny_model)
    assert not (tmp_path / "table" / "manifest.json").exists()
    assert not list((tmp_path / "table").rglob("lease.json"))


def test_a_table_of_another_encoder_is_not_overwritten(latents_table, world_corpus, tiny, tiny_model, tmp_path):
    table = shutil.copytree(latents_table, tmp_path / "table")
    manifest = json.loads((table / "manifest.json").read_text())
    (table / "manifest.json").write_text(json.dumps(manifest | {"encoder_fingerprint": "another"}))
    before = contents(table)
    with pytest.raises(UserError, match=r"latents of another encoder \(another\)"):
        encode(str(world_corpus), str(table), tiny, tiny_model)
    assert contents(table) == before


def test_latents_that_were_made_otherwise_are_not_overwritten(latents_table, world_corpus, tiny, tiny_model, tmp_path):
    table = Path(shutil.copytree(latents_table, tmp_path / "table"))
    before = contents(table)
    longer, pyav = apply_overrides(tiny, ["num_frames=9"]), EncodeOptions(decoder="pyav")
    with pytest.raises(UserError, match=r"made with num_frames 15, but num_frames 17 is asked for.*--replace"):
        encode(str(world_corpus), str(table), longer, tiny_model)
    with pytest.raises(UserError, match=r"made with read_with auto, but read_with pyav is asked for.*--replace"):
        encode(str(table / "clips"), str(table), tiny, tiny_model, options=pyav)
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
