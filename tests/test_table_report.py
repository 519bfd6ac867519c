"""The report of a table: its numbers are the table's, its page holds everything, and it can harm no run."""

import base64
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipelines.ingest.pipeline import IngestOptions, ingest
from tests._page import Page
from videogen import storage
from videogen.data.curation import Policy
from videogen.data.datasets import open_table
from videogen.data.datasets.clips_schema import IngestSpec
from videogen.data.datasets.clips_table import ClipsTable
from videogen.data.datasets.latents_table import LatentsTable
from videogen.data.video import read_frames, write_mp4
from videogen.reporting.run_log import RunLog, Sample, read_run, run_names
from videogen.reporting.table import PAGE_NAME, write_report
from videogen.reporting.table.contents import gather
from videogen.reporting.table.reasons import read_reasons
from videogen.reporting.table.reconstructions import reconstruct

HOSTILE = "<img src=x onerror=alert(1)>.mp4"
AMPERSAND = "a & b <b>.mp4"
RULES = ("duplicate_of = ''", "lively=motion >= 0.08", "brightness > 20", "path <> '<script>'")
SPEC = IngestSpec(15, 16, split_shots=True, scores=("motion", "brightness"), hashes=True, thumbnails=True)


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory, camera_clip: Path) -> Path:
    """Return a folder of real clips, and of files that give none, some of them named to do harm."""
    folder = tmp_path_factory.mktemp("report-videos")
    for name in ("bikes.mp4", "carphone_pristine.mp4"):
        shutil.copy(camera_clip.parent / name, folder)
    shutil.copy(camera_clip.parent / "carphone_distorted.mp4", folder / AMPERSAND)
    (folder / HOSTILE).write_bytes(b"this is no video")
    for frames in (3, 7):
        (folder / f"short_{frames}.mp4").write_bytes(write_mp4(np.zeros((frames, 64, 64, 3), np.uint8), 16))
    (folder / "black.mp4").write_bytes(write_mp4(np.zeros((30, 64, 64, 3), np.uint8), 16))
    return folder


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory, ray_cluster, videos: Path) -> str:
    """Return a clips table with a policy, as a run leaves it."""
    uri = str(tmp_path_factory.mktemp("report") / "clips")
    ingest(str(videos), uri, IngestOptions(SPEC, Policy.of(RULES)))
    return uri


@pytest.fixture(scope="session")
def index(table: str) -> pd.DataFrame:
    return pd.concat([batch.to_pandas() for batch in ClipsTable.open(table).batches()])


def numbers_of(uri: str | Path) -> dict:
    return json.loads(Path(uri, "report", "report.json").read_text())


def page_of(uri: str | Path) -> Page:
    return Page(Path(uri, PAGE_NAME).read_text())


# --- the numbers are the table's ---------------------------------------------------------------------------------


def test_a_run_ends_with_a_report_of_the_tables_own_numbers(table, index):
    told, manifest = numbers_of(table), ClipsTable.open(table).manifest
    assert (
        told["counts"] == manifest["counts"] == {"planned": 7, "ok": 4, "filtered": 2, "failed": 1, "rows": len(index)}
    )
    assert told["rows_by_rule"] == index["dropped_by"].value_counts().to_dict()
    assert told["rows_by_rule"][""] == manifest["kept"]
    for rule, clips in index.groupby("dropped_by"):
        assert told["seconds_by_rule"][rule] == pytest.approx((clips["end_s"] - clips["start_s"]).sum())
    assert told["values"]["codec"] == {"h264": len(index)}
    assert told["values"]["has_audio"] == {"no": len(index)}


def test_the_funnel_loses_what_the_table_lost(table, index):
    videos, clips = numbers_of(table)["funnels"]
    assert [(step["left"], step["lost"]) for step in videos["steps"]] == [(7, 0), (6, 1), (4, 2)]
    assert clips["steps"][0]["left"] == len(index)
    left = len(index)
    for step, name in zip(clips["steps"][1:], Policy.of(RULES).rules, strict=True):
        dropped = int((index["dropped_by"] == name).sum())
        left -= dropped
        assert (step["label"], step["lost"], step["left"]) == (name, dropped, left)
    assert clips["steps"][1]["breaks"] == (index["duplicate_of"] != "").sum()


def test_histograms_count_every_clip(table, index):
    told = {one["name"]: one for one in numbers_of(table)["histograms"]}
    assert {"motion", "brightness", "width"} <= set(told)
    for name, one in told.items():
        kept, dropped = index[index["dropped_by"] == ""][name], index[index["dropped_by"] != ""][name]
        assert one["kept"] == np.histogram(kept, one["edges"])[0].tolist()
        assert one["dropped"] == np.histogram(dropped, one["edges"])[0].tolist()
        values = index[name].astype(float)
        assert (one["least"], one["greatest"]) == (values.min(), values.max())
        assert one["median"] == pytest.approx(values.median())


def test_failures_are_grouped_by_reason_with_an_example(table):
    told = numbers_of(table)
    (failed,) = told["failed"]
    assert failed["num_inputs"] == 1
    assert failed["example"].endswith(HOSTILE)
    (filtered,) = told["filtered"]
    # Of 3 and of 7 frames, yet one reason.
    assert filtered["num_inputs"] == 2
    assert filtered["error"].startswith("it has N frames, too few")


def test_reasons_are_ranked_and_numbers_do_not_tell_them_apart(tmp_path):
    errors = [f"bad packet {n} at 0x{n:x}" for n in range(5)] + ["moov atom not found"] * 2
    rows = {"stage": ["decode"] * 7, "error": errors, "uri": [f"s3://b/{n}.mp4" for n in range(7)]}
    pd.DataFrame(rows).to_parquet(tmp_path / "errors.parquet")
    found = read_reasons(str(tmp_path / "errors.parquet"))
    assert [tuple(reason) for reason in found] == [
        ("decode", "bad packet N at N", 5, "s3://b/0.mp4"),
        ("decode", "moov atom not found", 2, "s3://b/5.mp4"),
    ]
    assert read_reasons(str(tmp_path / "none.parquet")) == []


# --- the page ----------------------------------------------------------------------------------------------------


def test_every_picture_is_in_the_page_and_can_be_opened(table, index):
    told, page = numbers_of(table), page_of(table)
    pictures = page.all("img")
    duplicates = told["pictured"][RULES[0]]
    assert len(duplicates) >= 3
    # Each near duplicate stands beside what it looks like.
    assert len(pictures) == sum(map(len, told["pictured"].values())) + len(duplicates)
    for picture in pictures:
        kind, _, content = picture["src"].partition(",")
        assert kind == "data:image/jpeg;base64"
        image = Image.open(io.BytesIO(base64.b64decode(content, validate=True)))
        image.load()
        assert image.width >= 3 * 64


def test_pictures_are_of_clips_that_the_rule_drops(table, index):
    verdicts = index.set_index("clip_id")["dropped_by"]
    pictured = numbers_of(table)["pictured"]
    assert set(pictured) == {"", *Policy.of(RULES).rules}
    for rule, clip_ids in pictured.items():
        group = verdicts[verdicts == rule]
        most = 12 if rule else 24
        assert len(clip_ids) == len(set(clip_ids)) == min(most, len(group))
        assert set(clip_ids) <= set(group.index)


def test_the_page_needs_nothing_from_elsewhere(table):
    page = page_of(table)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.elements}
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "data", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert "prefers-color-scheme: dark" in page.styles
    assert not re.search(r"url\(|@import|https?:", page.styles)


def test_names_of_files_are_text(table):
    page = page_of(table)
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert not any(image.get("src") == "x" for image in page.all("img"))
    assert page.has(HOSTILE)
    assert page.has(AMPERSAND)
    assert page.has("path <> '<script>'")


def test_the_page_says_its_numbers(table):
    page, told = page_of(table), numbers_of(table)
    assert page.has(f"{told['rows_by_rule']['']} of {told['counts']['rows']} clips kept")
    assert page.has("motion >= 0.08")
    for step in told["funnels"][1]["steps"]:
        assert str(step["left"]) in page.texts
    assert len(page.all("svg")) == len(told["histograms"]) + 2  # and two of the run


# --- runs --------------------------------------------------------------------------------------------------------


def test_a_run_leaves_what_it_measured(table):
    (name,) = run_names(table)
    run = read_run(table, name)
    assert (run.step, run.unit, run.total, run.status) == ("ingest", "videos", 7, "done")
    assert run.samples[0] == Sample(0.0, 0, 0, 0, 0)
    assert run.done == 7
    assert (run.samples[-1].ok, run.samples[-1].filtered, run.samples[-1].failed) == (4, 2, 1)
    assert run.operator_s["analyse_s"] > 0
    assert numbers_of(table)["throughput"][-1] == [run.seconds, 7, 4, 2, 1]


def test_a_killed_run_leaves_its_trace_and_the_page_says_so(table, tmp_path):
    copy = str(shutil.copytree(table, tmp_path / "table"))
    script = (
        "import os, signal, sys; from videogen.reporting.run_log import RunLog\n"
        "with RunLog(sys.argv[1], 'ingest', 'videos', 9, write_every_s=0) as log:\n"
        "    log.sample({'ok': 3, 'failed': 1}, {'analyse_s': 2.5})\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, copy], env=dict(os.environ))
    assert killed.returncode == -signal.SIGKILL
    run = read_run(copy, run_names(copy)[-1])
    assert (run.status, run.done, run.samples[-1].failed, run.operator_s) == ("running", 4, 1, {"analyse_s": 2.5})
    assert write_report(copy)  # there is one run more
    assert page_of(copy).has("killed")


def test_a_run_that_stops_says_why(tmp_path):
    with pytest.raises(ValueError, match="out of"), RunLog(str(tmp_path), "encode", "clips", 5):
        raise ValueError("out of\nspace")
    (name,) = run_names(str(tmp_path))
    run = read_run(str(tmp_path), name)
    assert (run.status, run.error) == ("stopped", "out of space")


def test_samples_stay_few_in_a_run_of_any_length(tmp_path):
    now = 100.0
    with RunLog(str(tmp_path), "encode", "clips", 100_000, write_every_s=1e6, clock=lambda: now) as log:
        for done in range(1, 20_001):
            now += 0.5
            log.sample({"ok": done}, {})
    (name,) = run_names(str(tmp_path))
    run = read_run(str(tmp_path), name)
    assert 100 < len(run.samples) <= 302
    assert (run.samples[0].done, run.done, run.seconds) == (0, 20_000, 10_000)
    assert all(sample.done == sample.seconds * 2 for sample in run.samples)
    gaps = np.diff([sample.seconds for sample in run.samples[:-1]])
    assert gaps.max() <= 2 * gaps.min()


def test_a_trace_that_cannot_be_written_stops_nothing(tmp_path, caplog):
    (tmp_path / "runs").write_text("a file where a folder should be")
    with RunLog(str(tmp_path), "encode", "clips", 5) as log:
        log.sample({"ok": 5}, {})
    assert "could not be written" in caplog.text


# --- it can harm no run ------------------------------------------------------------------------------------------


def test_a_report_is_made_again_only_when_something_is_new(table, tmp_path):
    copy = str(shutil.copytree(table, tmp_path / "table"))
    before = numbers_of(copy)
    assert not write_report(copy)
    Path(copy, PAGE_NAME).unlink()
    assert write_report(copy)
    assert numbers_of(copy) == before
    assert Path(copy, PAGE_NAME).exists()


def test_a_run_that_was_killed_before_its_report_makes_it_when_run_again(table, videos, tmp_path):
    copy = shutil.copytree(table, tmp_path / "table")
    shutil.rmtree(copy / "report")
    assert ingest(str(videos), str(copy), IngestOptions(SPEC, Policy.of(RULES))).done_now == 0
    assert numbers_of(copy) == numbers_of(table)


def test_a_table_in_a_bucket_has_the_same_report(table, s3):
    storage.upload(table, f"{s3}/table")
    storage.remove(f"{s3}/table/report")
    assert write_report(f"{s3}/table")
    assert storage.read_json(f"{s3}/table/report/report.json") == numbers_of(table)
    assert len(Page(storage.read_text(f"{s3}/table/{PAGE_NAME}")).all("img")) == len(page_of(table).all("img"))
    assert not write_report(f"{s3}/table")


def test_a_damaged_shard_costs_the_pictures_alone(table, tmp_path, caplog):
    copy = shutil.copytree(table, tmp_path / "table")
    shutil.rmtree(copy / "report")
    for shard in (copy / "shards").iterdir():
        shard.write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    assert write_report(str(copy))
    assert "without its pictures" in caplog.text
    before, after = numbers_of(table), numbers_of(copy)
    assert not any(after["pictured"].values())
    assert {**after, "pictured": before["pictured"]} == before
    assert not page_of(copy).all("img")


def test_whatever_goes_wrong_is_only_logged(table, tmp_path, caplog):
    assert not write_report(str(tmp_path))
    copy = shutil.copytree(table, tmp_path / "table")
    shutil.rmtree(copy / "report")
    (copy / "report").write_text("a file where a folder should be")
    assert not write_report(str(copy))
    assert caplog.text.count("no report about") == 2


def test_a_table_from_headers_alone_has_a_report_without_pictures(latents_table):
    clips = Path(latents_table, "clips")
    page, told = page_of(clips), numbers_of(clips)
    assert told["counts"]["rows"] == told["rows_by_rule"][""] == 6
    assert not page.all("img")
    assert page.has("made from headers alone")


# --- latents -----------------------------------------------------------------------------------------------------


def test_round_trips_show_what_the_decoder_makes_of_the_latents(latents_table, tiny_model):
    import torch
    from diffusers import AutoencoderKL

    from videogen.evaluation.psnr import psnr_db

    vae = AutoencoderKL.from_pretrained(f"{tiny_model}/autoencoder").eval()
    trips, opened = numbers_of(latents_table)["reconstructions"], LatentsTable.open(latents_table)
    assert len(trips) == len(opened) == 6
    for index, trip in enumerate(trips):
        row = opened.row(index, ("clip_id", "latents_16", "source"))
        assert (trip["clip_id"], trip["source"], trip["frame"]) == (row["clip_id"], row["source"], 7)
        with torch.inference_mode():
            pixels = vae.decode(torch.from_numpy(row["latents_16"][7:8].astype(np.float32))).sample
        decoded = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        assert trip["psnr_db"] == pytest.approx(psnr_db(decoded, read_frames(row["source"], [7], 64)), abs=0.01)
        deviation = row["latents_16"][7].std(dtype=np.float32)
        assert trip["latent_std"] == pytest.approx(deviation * vae.config.scaling_factor, rel=1e-4)
    page = page_of(latents_table)
    assert len(page.all("img")) == 3 * 6
    for picture in page.all("img"):
        Image.open(io.BytesIO(base64.b64decode(picture["src"].partition(",")[2]))).load()
    assert [link["href"] for link in page.all("a")] == ["../clips/report/index.html"]


def test_a_source_that_is_gone_has_no_round_trip(latents_table, world_corpus, tiny_model, tmp_path):
    from diffusers import AutoencoderKL

    source = world_corpus / "clip_2.mp4"
    source.rename(tmp_path / "elsewhere.mp4")
    try:
        trips = reconstruct(latents_table, lambda: AutoencoderKL.from_pretrained(f"{tiny_model}/autoencoder").eval())
    finally:
        (tmp_path / "elsewhere.mp4").rename(source)
    assert [Path(trip.source).name for trip in trips] == [f"clip_{number}.mp4" for number in (0, 1, 3, 4, 5)]


def test_latents_have_a_report_when_the_decoder_is_gone(latents_table, tmp_path, caplog):
    def gone():
        raise OSError("the bucket is gone")

    copy = shutil.copytree(latents_table, tmp_path / "table")
    shutil.rmtree(copy / "report")
    assert write_report(str(copy), gone)
    assert "without its reconstructions: OSError: the bucket is gone" in caplog.text
    told = numbers_of(copy)
    assert told["reconstructions"] == []
    assert told["counts"] == numbers_of(latents_table)["counts"]
    assert [step["left"] for step in told["funnels"][0]["steps"]] == [6, 6, 6]


def test_sampled_clips_are_the_same_every_time(table):
    first, second = (gather(open_table(table)) for _ in range(2))
    assert first.numbers() == second.numbers()
    assert list(first.pictures) == list(second.pictures)
