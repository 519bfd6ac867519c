"""Ingesting on a cluster: every video accounted for, scores kept apart from decisions, nothing done twice."""

import json
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines import cluster
from pipelines.encode.pipeline import encode
from pipelines.ingest import pipeline as ingesting
from pipelines.ingest.pipeline import IngestOptions, ingest
from pipelines.runner import run
from pipelines.runner.failure_breaker import FailureBreaker
from pipelines.runner.run import RunOptions
from tests.conftest import load_job
from videogen import storage
from videogen.data.curation import Policy
from videogen.data.curation.scores import SCORES
from videogen.data.datasets.clips_schema import IngestSpec
from videogen.data.datasets.clips_table import ClipsTable
from videogen.data.tables import FAILED, OK, Outcome
from videogen.data.video import write_mp4
from videogen.errors import UserError

FULL = IngestSpec(
    num_frames=15, fps=16, split_shots=True, scores=tuple(SCORES), hashes=True, thumbnails=True, decoder="auto"
)
PLAIN = IngestSpec(num_frames=15, fps=16)


def options(spec: IngestSpec = PLAIN, *rules: str, **run) -> IngestOptions:
    return IngestOptions(spec, Policy.of(rules), RunOptions(**run))


def rows(uri: str | Path, where: str | None = None) -> pd.DataFrame:
    return pd.concat([batch.to_pandas() for batch in ClipsTable.open(str(uri)).batches(where=where)])


@pytest.fixture(scope="session")
def camera_folder(camera_clip: Path) -> Path:
    """Return the folder of the real camera clips."""
    return camera_clip.parent


@pytest.fixture(scope="session")
def camera_table(tmp_path_factory: pytest.TempPathFactory, ray_cluster, camera_folder: Path) -> str:
    """Return a table with all that is found out about the real camera clips, none of them dropped."""
    uri = str(tmp_path_factory.mktemp("ingest") / "clips")
    ingest(str(camera_folder), uri, options(FULL))
    return uri


def test_clips_of_real_video_are_found_scored_and_compared(camera_table):
    found = rows(camera_table)
    assert ClipsTable.open(camera_table).manifest["counts"]["ok"] == 4
    bikes = found[found["path"] == "bikes.mp4"]
    assert sorted(set(bikes["shot"])) == [0, 1, 2, 3, 4]  # of six shots, as one sees; the last is too short
    # No clip crosses a cut: within a video, shots are apart in time.
    ends = bikes.groupby("shot")["end_s"].max().to_numpy()
    starts = bikes.groupby("shot")["start_s"].min().to_numpy()
    assert (starts[1:] >= ends[:-1] - 1e-6).all()
    for name in SCORES:
        assert found[name].notna().all()
    # QCIF is 176 pixels wide, and shown as 193.
    qcif = found[found["path"].str.startswith("carphone")]
    assert set(qcif["width"]) == {193}
    assert qcif["sample_aspect_ratio"].to_numpy() == pytest.approx(128 / 117)
    assert set(found["codec"]) == {"h264"}
    # The distorted copy of a scene is found out, and nothing else is.
    copies = found[found["duplicate_of"] != ""]
    originals = found.set_index("clip_id").loc[copies["duplicate_of"], "path"]
    assert set(copies["path"]) == {"carphone_pristine.mp4"}
    assert set(originals) == {"carphone_distorted.mp4"}


def test_another_policy_decodes_nothing_again(camera_table, camera_folder, tmp_path, monkeypatch):
    table = str(shutil.copytree(camera_table, tmp_path / "table"))

    def connect():
        pytest.fail("deciding needs no cluster")

    monkeypatch.setattr(cluster, "connect", connect)
    strict = options(FULL, "duplicate_of = ''", "wide=width > 600", "motion >= 0")
    result = ingest(str(camera_folder), table, strict)
    assert result.done_now == 0
    found = rows(table)
    assert result.kept == (found["dropped_by"] == "").sum()
    assert set(found[found["dropped_by"] == ""]["path"]) == {"bikes.mp4", "bigbuckbunny.mp4"}
    assert set(found["dropped_by"]) == {"", "duplicate_of = ''", "wide"}
    funnel = ClipsTable.open(table).manifest["funnel"]
    assert [step["left"] for step in funnel][-1] == result.kept
    assert ingest(str(camera_folder), table, options(FULL)).kept == len(found)

    # What was found out is not replaced by something else without a word.
    before = Path(table, "manifest.json").read_bytes()
    with pytest.raises(UserError, match=r"made with num_frames 15, fps 16, but num_frames 30, fps 8 is.*--replace"):
        ingest(str(camera_folder), table, options(replace(FULL, num_frames=30, fps=8)))
    with pytest.raises(UserError, match=r"scores motion\+sharpness"):
        ingest(str(camera_folder), table, options(PLAIN))
    assert Path(table, "manifest.json").read_bytes() == before

    # A damaged index is told, and the cure that is told mends it.
    (index,) = Path(table, "index").glob(f"{json.loads(before)['index']['hash']}*")
    index.write_bytes(index.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"index of .* cannot be read .*remove manifest\.json and the folder index"):
        ingest(str(camera_folder), table, options(FULL))
    Path(table, "manifest.json").unlink()
    shutil.rmtree(index.parent)
    assert ingest(str(camera_folder), table, options(FULL)).done_now == 0
    assert len(rows(table)) == len(found)


def test_every_video_ends_in_one_table(camera_clip, ray_cluster, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    shutil.copy(camera_clip, videos / "good.mp4")
    (videos / "text.mp4").write_bytes(b"this is no video")
    (videos / "short.mp4").write_bytes(write_mp4(np.zeros((3, 64, 64, 3), np.uint8), 16))
    pd.DataFrame({"video": ["good.mp4", "text.mp4", "short.mp4", "gone.mp4"]}).to_csv(videos / "list.csv", index=False)
    result = ingest(str(videos / "list.csv"), str(tmp_path / "table"), options())
    assert (result.planned, result.ok, result.filtered, result.failed) == (4, 1, 1, 2)
    errors = pd.read_parquet(tmp_path / "table" / "errors.parquet").set_index("uri")
    assert list(errors.index.map(lambda uri: Path(uri).name)) == ["gone.mp4", "text.mp4"]
    assert list(errors["stage"]) == ["fetch", "probe"]
    filtered = pd.read_parquet(tmp_path / "table" / "filtered.parquet")
    assert "3 frames, too few" in filtered["error"][0]
    again = ingest(str(videos / "list.csv"), str(tmp_path / "table"), options())
    assert (again.done_now, again.failed) == (0, 2)


def test_only_new_replaced_and_retried_videos_are_looked_at(camera_clip, ray_cluster, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    shutil.copy(camera_clip, videos / "a.mp4")
    shutil.copy(camera_clip, videos / "b.mp4")
    # A limit that no video keeps stands for a storage that was too slow for a while.
    hasty = options(max_failure_rate=1.0, limit_s=1e-3)
    with pytest.raises(UserError, match=r"None of the 2 videos.*stopped after"):
        ingest(str(videos), str(tmp_path / "table"), hasty)
    with pytest.raises(UserError, match="None of the 2 videos"):
        ingest(str(videos), str(tmp_path / "table"), options())
    with pytest.raises(UserError, match="None of the 2 videos"):
        ingest(str(videos), str(tmp_path / "table"), options(max_failure_rate=1.0, limit_s=1e-3, retry_failed=True))
    assert list(pd.read_parquet(tmp_path / "table" / "errors.parquet")["attempts"]) == [4, 4]
    result = ingest(str(videos), str(tmp_path / "table"), options(retry_failed=True))
    assert (result.ok, result.failed, result.done_now) == (2, 0, 2)
    shutil.copy(camera_clip, videos / "c.mp4")
    assert ingest(str(videos), str(tmp_path / "table"), options()).done_now == 1
    (videos / "b.mp4").write_bytes(write_mp4(np.zeros((15, 64, 64, 3), np.uint8), 16))
    result = ingest(str(videos), str(tmp_path / "table"), options())
    assert (result.done_now, result.ok) == (1, 3)
    found = rows(tmp_path / "table")
    assert list(found[found["path"] == "b.mp4"]["width"]) == [64]
    assert list(found["path"]) == sorted(found["path"])
    other = IngestSpec(num_frames=10, fps=16)
    assert ingest(str(videos), str(tmp_path / "table"), options(other, replace=True)).done_now == 3
    assert ClipsTable.open(str(tmp_path / "table")).spec.num_frames == 10


def test_what_failed_may_fail_again_without_stopping_a_run(camera_clip, ray_cluster, tmp_path, monkeypatch):
    """Of six videos three are bad, which is borne; that all three that are tried again fail must be, too."""
    monkeypatch.setattr(run, "FailureBreaker", partial(FailureBreaker, min_inputs=3))
    # A unit a graph: what each of several graphs has done is counted.
    monkeypatch.setattr(run, "BATCHES_AT_ONCE", 1)
    monkeypatch.setattr(ingesting, "VIDEOS_PER_BATCH", 2)
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(3):
        shutil.copy(camera_clip, videos / f"{number} good.mp4")
        (videos / f"{number} bad.mp4").write_bytes(b"this is no video %d" % number)
    for again in (False, True):
        result = ingest(str(videos), str(tmp_path / "table"), options(retry_failed=again))
        assert (result.ok, result.failed, result.done_now) == (3, 3, 3 if again else 6)
    assert list(pd.read_parquet(tmp_path / "table" / "errors.parquet")["attempts"]) == [2, 2, 2]


def test_from_bucket_to_bucket_with_captions(world_corpus, ray_cluster, s3):
    storage.upload(world_corpus, f"{s3}/videos")
    result = ingest(f"{s3}/videos", f"{s3}/clips", options(FULL))
    assert (result.ok, result.clips) == (6, 6)
    captions = pd.read_parquet(world_corpus / "captions.parquet").set_index("video")["caption"]
    found = rows(f"{s3}/clips")
    assert list(found["caption"]) == [captions[path] for path in found["path"]]
    assert set(found["caption_source"]) == {"given"}
    assert ingest(f"{s3}/videos", f"{s3}/clips", options(FULL)).done_now == 0


def test_who_needs_a_caption_is_found_out_again_when_captions_come_and_go(world_corpus, ray_cluster, tmp_path):
    videos, captions, table = tmp_path / "videos", tmp_path / "captions.csv", str(tmp_path / "table")
    videos.mkdir()
    for name in ("clip_0.mp4", "clip_1.mp4"):
        shutil.copy(world_corpus / name, videos / name)
    captions.write_text("video,caption\nclip_0.mp4,a shape\n")
    some = ingest(str(videos), table, options(), captions=str(captions))
    assert (some.ok, some.filtered) == (1, 1)
    none = ingest(str(videos), table, options())
    assert (none.ok, none.filtered) == (2, 0)
    again = ingest(str(videos), table, options(), captions=str(captions))
    assert (again.ok, again.filtered) == (1, 1)


def test_files_of_others_in_the_output_stay(camera_clip, ray_cluster, tmp_path):
    own = tmp_path / "table" / "plan" / "own.mp4"
    own.parent.mkdir(parents=True)
    shutil.copy(camera_clip, own)
    ingest(str(camera_clip), str(tmp_path / "table"), options())
    assert [path.name for path in own.parent.iterdir()] == ["own.mp4"]
    with pytest.raises(UserError, match="is the input itself"):
        ingest(str(tmp_path / "table"), f"{tmp_path}/table/", options())


def test_a_rule_may_end_in_a_comment(camera_clip, ray_cluster, tmp_path):
    assert ingest(str(camera_clip), str(tmp_path / "table"), options(PLAIN, "width > 0 -- any")).kept > 0


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "not a table manifest"),
        ('{"name": "of something else"}', "not a table manifest"),
        ('{"kind": "clips", "schema_version": 99}', "schema version 99, but this release writes 2"),
        ('{"kind": "clips", "schema_version": 2}', "damaged .key 'identity': Field required"),
    ],
    ids=["empty", "deep", "list", "foreign", "newer", "cut"],
)
def test_a_damaged_table_is_refused_as_output_and_as_input(manifest, words, camera_clip, tiny, tmp_path):
    table = tmp_path / "table"
    table.mkdir()
    (table / "manifest.json").write_text(manifest)
    with pytest.raises(UserError, match=words) as caught:
        ingest(str(camera_clip), str(table), options())
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"is not JSON|holds no video|schema version 99|damaged"):
        encode(str(table), str(tmp_path / "latents"), tiny, "no autoencoder")
    assert [path.name for path in tmp_path.rglob("*")] == ["table", "manifest.json"]


@pytest.mark.parametrize("job", ["ingest", "encode_latents"])
def test_a_decoder_that_cannot_be_loaded_is_found_out_before_work(job, camera_clip, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    command = ["--input", str(camera_clip), "--output", str(tmp_path / "table"), "--decoder", "torchcodec"]
    with pytest.raises(UserError, match=r"'torchcodec' cannot be loaded.*install"):
        load_job(job).main(command)
    assert not (tmp_path / "table").exists()


@pytest.mark.parametrize("uri", ["s3://", "s3:///", ""])
def test_an_output_that_is_no_place_is_refused(uri, camera_clip):
    with pytest.raises(UserError, match=r"names no bucket|is empty"):
        load_job("ingest").main(["--input", str(camera_clip), "--output", uri])


def test_a_table_of_something_else_is_not_overwritten(latents_table, camera_clip):
    before = (Path(latents_table) / "manifest.json").read_bytes()
    with pytest.raises(UserError, match="holds a table of latents, not of clips"):
        ingest(str(camera_clip), latents_table, options())
    assert (Path(latents_table) / "manifest.json").read_bytes() == before


def test_a_run_that_goes_wrong_is_stopped_in_words(ray_cluster, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for index in range(120):
        (videos / f"{index:03}.mp4").write_bytes(b"this is no video %d" % index)
    with pytest.raises(UserError, match=r"Stopped: \d+ of \d+ inputs failed.*--retry-failed") as stop:
        ingest(str(videos), str(tmp_path / "table"), options())
    # What was found out is not lost, and whoever is called at night can look at it.
    assert list((tmp_path / "table").glob("parts/*.parquet"))
    errors = pd.read_parquet(tmp_path / "table" / "errors.parquet")
    assert f"Stopped: {len(errors)} of " in str(stop.value)
    assert f"{tmp_path}/table/errors.parquet" in str(stop.value)
    assert not (tmp_path / "table" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        ("it cannot be fetched (Forbidden)", "credentials"),
        ("decord lacks the av1 codec", "codec"),
        ("no decoder is installed for its video stream", "codec"),
        ("it cannot be fetched (HTTP 403)", "credentials"),
        ("the decoder was stopped after 60 s", "--video-limit"),
        ("it is not a readable video", r"'bad 0\.mp4'; all are in 'errors\.parquet'\. Look at one of them"),
    ],
)
def test_the_breaker_names_the_likely_cause(error, cause):
    breaker = FailureBreaker(max_rate=0.5, min_inputs=10)
    breaker.add([Outcome(str(index), OK, rows=1) for index in range(5)])
    breaker.add(
        [Outcome(f"bad {index}", FAILED, uri=f"bad {index}.mp4", stage="fetch", error=error) for index in range(5)]
    )
    with pytest.raises(UserError, match=cause):
        breaker.add([Outcome("last", FAILED, stage="fetch", error=error)])


def test_one_video_of_a_thousand_bad_clips_stops_nothing():
    breaker = FailureBreaker(max_rate=0.5, min_inputs=10)
    for unit in range(40):
        bad = [Outcome(f"{unit} {clip}", FAILED, uri="endless.gif", error="stopped") for clip in range(32)]
        breaker.add([*bad, *(Outcome(f"{unit} good {video}", OK, uri=f"{unit} {video}.mp4") for video in range(2))])


def test_what_breaks_after_many_good_videos_is_noticed_soon():
    breaker = FailureBreaker(max_rate=0.5)
    breaker.add([Outcome(str(index), OK, rows=1) for index in range(100_000)])
    broken = [Outcome(f"bad {index}", FAILED, stage="decode", error=f"no decoder ({index})") for index in range(2000)]
    # Good ones in between, or another reason: no sign that everything is broken.
    for start in range(0, 2000, 500):
        breaker.add(broken[start : start + 500])
        breaker.add([Outcome(f"good after {start}", OK, rows=1)])
    with pytest.raises(UserError, match=r"the last 1000 inputs failed at 'decode' with 'no decoder \(N\)'.*codec"):
        breaker.add(broken[:1000])


def test_a_bearable_share_of_failures_stops_nothing():
    breaker = FailureBreaker(max_rate=0.5, min_inputs=10)
    for index in range(100):
        breaker.add([Outcome(f"{index}", FAILED if index % 2 else OK, rows=1 - index % 2, error="x")])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--scores", "motoin"], r"no score 'motoin'.*Did you mean 'motion'"),
        (["--keep", "motoin > 1"], "motion"),
        (["--decoder", "ffmpeg"], "no decoder 'ffmpeg'"),
        (["--num-frames", "0"], "--num-frames is 0"),
        (["--num-frames", "99999999999"], "from 1 to 100000"),
        (["--fps", "1e-300"], "--fps is 1e-300"),
        (["--video-limit", "1e20"], "--video-limit is 1e"),
        (["--captioner", ""], "--captioner is empty"),
        (["--keep", "motion > 'much'"], "cannot be evaluated"),
        (["--max-failure-rate", "7"], "share from 0 to 1"),
        (["--duplicate-distance", "65"], "0 to 16 bits"),
        (["--aesthetic", "somewhere"], "--embedding"),
        (["--headers-only", "--captioner", "somewhere"], "decodes no frames"),
        (["--embedding", "/nowhere"], "--embedding '/nowhere' does not exist"),
        (["--embedding", "MODEL"], "Embedding model '.*' is a model of type 'gpt2'"),
        (["--captioner", "MODEL"], "Captioner '.*' is a model of type 'gpt2'"),
    ],
)
def test_the_job_refuses_bad_options_before_work(arguments, words, world_corpus, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"")
    (model / "config.json").write_text('{"model_type": "gpt2"}')
    arguments = [str(model) if argument == "MODEL" else argument for argument in arguments]
    command = ["--input", str(world_corpus), "--output", str(tmp_path / "table"), *arguments]
    with pytest.raises(UserError, match=words):
        load_job("ingest").main(command)
    assert not list((tmp_path / "table").rglob("*.parquet"))
