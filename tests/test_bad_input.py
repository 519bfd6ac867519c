"""Bad input through the real command line: exit status 2, one clear sentence, within seconds, nothing started."""

import errno
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests._script_process import run_in_fork
from tests.conftest import load_job, without_frames
from videogen.cli import parser, run_job
from videogen.errors import UserError

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parent.parent
# Of processor time, which a busy machine does not stretch; a second or two is usual for a process, less for a fork.
# Nothing that loads a model, decodes a video or starts Ray fits into it.
LIMIT_CPU_S = 8


def refused(script: str, *arguments: object, env: dict[str, str] | None = None) -> str:
    """Run a command that must be refused, check the form of its answer, and return the sentence."""
    words = [str(word) for word in arguments]
    result, cpu_s = run_in_fork(script, words, {**os.environ, **(env or {})}, timeout_s=180)
    assert result.returncode == 2, result.stdout + result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert lines[0].endswith((".", "?"))
    assert "Traceback" not in result.stdout
    assert cpu_s < LIMIT_CPU_S
    return lines[0]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, world_corpus: Path, camera_corpus: Path) -> dict[str, Path]:
    """Return folders and files that are wrong in one way each, and two good corpora, by name."""
    root = tmp_path_factory.mktemp("bad")
    (root / "empty").mkdir()
    (root / "texts").mkdir()
    (root / "texts" / "notes.txt").write_text("no video here")
    (root / "not_a_model").mkdir()
    (root / "not_a_model" / "readme.txt").write_text("no model here")
    frames = {
        "no_prompt": {"text": ["a red circle moving left"]},
        "empty_prompt": {"prompt": ["a red circle moving left", "  "]},
        "no_rows": {"prompt": pd.Series([], dtype="str")},
        "good_prompts": {"prompt": ["a red circle moving left"]},
        "no_caption": {"video": ["clip_0.mp4"]},
        "no_text": {"prompt": [3]},
    }
    for name, columns in frames.items():
        pd.DataFrame(columns).to_parquet(root / f"{name}.parquet")
    (root / "not_parquet.parquet").write_text("prompt\na red circle moving left\n")
    (root / "broken.yaml").write_text("base: [unclosed\n")
    # A corpus whose captions say nothing of its videos, and a "Stable Diffusion" folder without its U-Net.
    shutil.copytree(world_corpus, root / "uncaptioned")
    pd.DataFrame({"file": ["clip_0.mp4"]}).to_parquet(root / "uncaptioned" / "captions.parquet")
    (root / "headless" / "vae").mkdir(parents=True)
    (root / "headless" / "vae" / "config.json").write_text("{}")
    pd.DataFrame({"prompt": ["a " * 2500]}).to_parquet(root / "long_prompt.parquet")
    (root / "corrupt").mkdir()
    (root / "corrupt" / "text.mp4").write_text("this is no video")
    (root / "hollow").mkdir()
    (root / "hollow" / "zeros.mp4").write_bytes(without_frames((world_corpus / "clip_0.mp4").read_bytes()))
    (root / "cut_model").mkdir()
    (root / "cut_model" / "model_index.json").write_text('{"_class_name": ["videogen.pip')
    names = {path.name: path for path in root.iterdir()}
    return names | {
        "root": root,
        "missing": root / "missing",
        "o": root / "o",
        "world": world_corpus,
        "camera": camera_corpus,
    }


# Each row: what is wrong, the command with {names} of `here`, and words that the sentence must contain.
CASES = [
    # presets and keys
    ("unknown preset, training", "train_cascade --data {world} --output {o} --preset tinny", ["tinny", "'tiny'"]),
    ("unknown preset, encoding", "encode_latents --input {world} --output {o} --preset smal", ["smal", "'small'"]),
    ("preset file missing", "train_cascade --preset {missing}.yaml --output {o}", ["missing.yaml"]),
    ("preset file broken", "train_cascade --preset {broken.yaml} --output {o}", ["broken.yaml"]),
    ("mistyped key", "train_cascade --set base.trainig.steps=5", ["trainig", "training"]),
    ("mistyped section", "train_cascade --set bse.training.steps=5", ["bse", "base"]),
    ("wrong type", "train_cascade --set base.training.steps=many", ["base.training.steps", "many"]),
    ("no value", "train_cascade --set base.training.steps", ["base.training.steps"]),
    ("unknown stage", "train_cascade --stages bsae", ["bsae", "'base'"]),
    (
        "mistyped key, generating",
        "generate --model {model} --prompts {good_prompts.parquet} --output {o} --set base.sampling.guidance=2",
        ["base.sampling.guidance", "guidance_scale"],
    ),
    # sizes
    ("not divisible by the U-Net", "train_cascade --set base.latent_size=7", ["7", "multiple"]),
    ("no aspect ratio", "encode_latents --input {world} --output {o} --set aspect_ratios=16:0", ["16:0", "16:9"]),
    ("not a multiple of base", "train_cascade --set upsample.0.latent_size=12", ["12", "multiple of 8"]),
    ("not a power of two", "train_cascade --set temporal_factor=3", ["3", "power of two"]),
    ("groups of norms", "train_cascade --set autoencoder.model.norm_num_groups=5", ["norm_num_groups 5", "divisor"]),
    ("text heads", "train_cascade --set text.model.num_attention_heads=5", ["num_attention_heads 5", "divisor of 64"]),
    ("odd discriminator", "train_cascade --set decode.discriminator_channels=15", ["15", "even", "16"]),
    (
        "more frames between than were trained",
        "generate --model {model} --prompts {good_prompts.parquet} --output {o} --set temporal_factor=4",
        ["temporal_factor 4", "at most 2"],
    ),
    ("no stage named", "train_cascade --stages=", ["''", "autoencoder"]),
    # folders
    ("missing corpus", "encode_latents --input {missing} --output {o}", ["missing", "not exist"]),
    ("empty corpus", "encode_latents --input {empty} --output {o}", ["empty"]),
    ("no video in it", "encode_latents --input {texts} --output {o}", ["texts", "video"]),
    ("missing data", "train_cascade --data {missing} --output {o}", ["missing", "not exist"]),
    ("empty data", "train_cascade --data {empty} --output {o}", ["empty"]),
    ("no video in the data", "train_cascade --data {texts} --output {o}", ["texts", "video"]),
    ("missing weights", "train_cascade --data {world} --output {o} --init-from {missing}", ["missing", "not exist"]),
    ("unknown scheme", "encode_latents --input gs://bucket/videos --output {o}", ["gs", "s3://"]),
    ("output is a file", "encode_latents --input {world} --output {good_prompts.parquet}", ["good_prompts"]),
    ("output in a file", "evaluate --model {model} --data {world} --output {broken.yaml}/e.json", ["broken.yaml"]),
    (
        "report in a file",
        "report --model {model} --generated {world} --evaluation {broken.yaml} --output {broken.yaml}",
        ["Output", "broken.yaml"],
    ),
    # videos of which none can be used: what is not there by its header, and what is there by its header alone
    ("no good video, encoding", "encode_latents --input {corrupt} --output {o}", ["text.mp4", "not a readable video"]),
    ("no good video, training", "train_cascade --data {corrupt} --output {o} --stages decode", ["text.mp4"]),
    ("no frames, encoding", "encode_latents --input {hollow} --output {o}", ["zeros.mp4", "decode"]),
    ("no frames, training", "train_cascade --data {hollow} --output {o} --stages decode", ["zeros.mp4", "decode"]),
    # captions
    ("no captions", "train_cascade --data {camera} --output {o} --stages base", ["caption"]),
    ("captions missing", "encode_latents --input {world} --captions {missing}.parquet --output {o}", ["missing"]),
    ("no caption column", "encode_latents --input {world} --captions {no_caption.parquet} --output {o}", ["caption"]),
    ("bad captions, training", "train_cascade --data {uncaptioned} --output {o}", ["captions.parquet", "caption"]),
    # models to begin from
    (
        "no U-Net",
        "train_cascade --data {world} --output {o} --init-from {headless} --stages base",
        ["headless", "unet"],
    ),
    ("mistyped path", "train_cascade --data {world} --output {o} --init-from jobs/sd21", ["jobs/sd21", "not exist"]),
    ("path with dots", "encode_latents --input {world} --output {o} --autoencoder ../vea", ["vea", "not exist"]),
    ("a whole bucket", "train_cascade --data {world} --output s3://my-model", ["s3://my-model", "bucket"]),
    # prompts and models
    ("long prompt", "generate --model {model} --prompts {long_prompt.parquet} --output {o}", ["4000"]),
    ("missing prompts", "generate --model {model} --prompts {missing}.parquet --output {o}", ["missing", "not exist"]),
    ("no prompt column", "generate --model {model} --prompts {no_prompt.parquet} --output {o}", ["prompt", "text"]),
    ("empty prompt", "generate --model {model} --prompts {empty_prompt.parquet} --output {o}", ["prompt", "empty"]),
    ("no prompts", "generate --model {model} --prompts {no_rows.parquet} --output {o}", ["no_rows"]),
    ("not a parquet file", "generate --model {model} --prompts {not_parquet.parquet} --output {o}", ["not_parquet"]),
    ("prompts of numbers", "generate --model {model} --prompts {no_text.parquet} --output {o}", ["3", "not text"]),
    (
        "broken index",
        "generate --model {cut_model} --prompts {good_prompts.parquet} --output {o}",
        ["model_index.json", "not JSON"],
    ),
    ("missing model", "generate --model {missing} --prompts {good_prompts.parquet} --output {o}", ["missing"]),
    ("not a model", "generate --model {not_a_model} --prompts {good_prompts.parquet} --output {o}", ["not_a_model"]),
    ("evaluating a missing model", "evaluate --model {missing} --data {world} --output {o}", ["missing"]),
    ("evaluating on missing data", "evaluate --model {model} --data {missing} --output {o}", ["missing"]),
]


@pytest.mark.parametrize(("command", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_is_refused_in_one_sentence(command, words, here, request):
    job, *arguments = command.split()
    model = request.getfixturevalue("tiny_model") if "{model}" in command else ""
    sentence = refused(f"jobs/{job}.py", *(_filled(word, here, model) for word in arguments))
    for word in words:
        assert word in sentence
    assert not here["o"].exists()


@pytest.mark.parametrize(
    "command",
    [
        "encode_latents --input {missing} --output {o}",
        "train_cascade --data {missing} --output {o}",
        "generate --model {missing} --prompts {good_prompts.parquet} --output {o}",
        "evaluate --model {missing} --data {world} --output {o}",
    ],
    ids=lambda command: command.split()[0],
)
def test_a_process_of_its_own_refuses_as_soon(command, here, run_script):
    """The forks above have imported what this one imports."""
    job, *arguments = command.split()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = run_script(f"jobs/{job}.py", *(_filled(word, here, "") for word in arguments))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 2
    assert re.fullmatch(r"error: [^\n]*missing[^\n]*\n", result.stderr)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < LIMIT_CPU_S


def test_a_full_disk_is_told_in_one_sentence(capsys):
    def main(_):
        raise OSError(errno.ENOSPC, "No space left on device", "/data/table")

    assert run_job(main) == 2
    assert capsys.readouterr().err.startswith("error: No space is left (/data/table): free some")


def test_two_dashes_are_no_value(capsys):
    options = parser("A job.")
    options.add_argument("--keep", action="append")
    assert options.parse_args(["--keep=motion > 1"]).keep == ["motion > 1"]
    with pytest.raises(SystemExit, match="2"):
        options.parse_args(["--keep=--"])
    assert "argument --keep: '--' is no value" in capsys.readouterr().err


def test_the_service_refuses_a_missing_model(here):
    assert "missing" in refused("-m", "serve", "--model", here["missing"])


# --- buckets -----------------------------------------------------------------------------------------------------


BUCKET_COMMANDS = [
    "encode_latents --input {uri} --output {o}",
    "train_cascade --data {uri} --output {o}",
    "generate --model {model} --prompts {uri}/prompts.parquet --output {o}",
    "evaluate --model {model} --data {uri} --output {o}",
]
BUCKET_COMMANDS += [
    "encode_latents --input {world} --output {uri}",
    "train_cascade --data {world} --output {uri}",
    "train_cascade --data {world} --output {o} --latents {uri}",
    "generate --model {model} --prompts {good_prompts.parquet} --output {uri}",
    "evaluate --model {model} --data {world} --output {uri}/evaluation.json",
    "make_corpus --output {uri}",
]


def _id(command: str) -> str:
    """Return e.g. "encode_latents --output" of a command with {uri} there."""
    words = command.split()
    place = next(index for index, word in enumerate(words) if "{uri}" in word)
    return f"{words[0]} {words[place - 1]}"


@pytest.mark.parametrize("command", BUCKET_COMMANDS, ids=_id)
def test_a_bucket_that_is_not_there(command, here, tiny_model, s3_endpoint):
    sentence = _refused_with_uri(command, "s3://no-such-bucket/videos", here, tiny_model)
    assert "no-such-bucket" in sentence


@pytest.mark.parametrize("command", BUCKET_COMMANDS, ids=_id)
def test_wrong_credentials(command, here, tiny_model, strict_s3):
    env = {"AWS_ENDPOINT_URL": strict_s3, "AWS_ACCESS_KEY_ID": "wrong", "AWS_SECRET_ACCESS_KEY": "wrong"}
    sentence = _refused_with_uri(command, "s3://private/videos", here, tiny_model, env)
    assert "s3://private/videos" in sentence
    assert "AWS_ACCESS_KEY_ID" in sentence


@pytest.mark.parametrize("command", [BUCKET_COMMANDS[0], *BUCKET_COMMANDS[4:6]], ids=_id)
def test_nobody_answers_at_the_endpoint(command, here, tiny_model):
    env = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    start = time.monotonic()
    sentence = _refused_with_uri(command, "s3://videos/raw", here, tiny_model, env)
    assert time.monotonic() - start < 15, "connecting is tried again for too long"
    assert "AWS_ENDPOINT_URL" in sentence


@pytest.fixture(scope="module")
def strict_s3() -> Iterator[str]:
    """Start an S3 server that checks keys (moto does so for a whole process, hence a process of its own)."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(
        command,
        env={**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                try:
                    urllib.request.urlopen(f"{endpoint}/moto-api/", timeout=1)
                    break
                except OSError:
                    time.sleep(0.1)
            yield endpoint
        finally:
            server.terminate()


# --- latents of another encoder (what a corrupt video costs stands in test_encode.py) -----------------------------


def test_latents_of_two_encoders_are_not_mixed(latents_table, tmp_path):
    shutil.copytree(latents_table, tmp_path / "both" / "one")
    shutil.copytree(latents_table, tmp_path / "both" / "two")
    manifest = tmp_path / "both" / "two" / "manifest.json"
    text = manifest.read_text()
    fingerprint = _find(json.loads(text), "fingerprint")
    manifest.write_text(text.replace(fingerprint, "0" * len(fingerprint)))

    sentence = refused(
        "jobs/train_cascade.py", "--data", tmp_path / "both", "--output", tmp_path / "o", "--stages", "base"
    )
    assert "encoder" in sentence


def test_latents_of_another_encoder_beside_a_new_model(latents_table, world_corpus, tmp_path):
    shutil.copytree(latents_table, tmp_path / "latents" / "clips")
    sentence = refused("jobs/train_cascade.py", "--data", world_corpus, "--output", tmp_path / "model")
    assert "latents of another encoder" in sentence
    assert not (tmp_path / "model").exists()

    table = tmp_path / "latents" / "clips"
    sentence = refused("jobs/encode_latents.py", "--input", world_corpus, "--output", table)
    assert "latents of another encoder" in sentence
    assert not (table / "autoencoder").exists()


def test_latents_of_an_autoencoder_that_was_not_found(latents_table, tmp_path):
    sentence = refused("jobs/train_cascade.py", "--data", latents_table, "--output", tmp_path / "model")
    assert "an autoencoder that was not found" in sentence
    assert str(tmp_path / "model" / "autoencoder") in sentence


JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("[!_]*.py"))
JOBS_WITH_OUTPUT = [job for job in JOBS if '"--output"' in (ROOT / "jobs" / f"{job}.py").read_text()]


@pytest.mark.parametrize("job", JOBS_WITH_OUTPUT)
def test_no_job_writes_into_rays_temporary_copy_of_the_checkout(job, tmp_path, monkeypatch):
    copy = tmp_path / "_ray_pkg_0123456789abcdef"
    copy.mkdir()
    monkeypatch.chdir(copy)
    required = re.findall(r'add_argument\("(--\w+)", required=True', (ROOT / "jobs" / f"{job}.py").read_text())
    values = {"--format": "webdataset"}
    others = [word for name in required if name != "--output" for word in (name, values.get(name, "anything"))]
    with pytest.raises(UserError, match="temporary copy"):
        load_job(job).main([*others, "--output", "runs/here"])
    assert not list(copy.iterdir())


def _filled(word: str, here: dict[str, Path], model: str) -> str:
    for name, path in here.items():
        word = word.replace(f"{{{name}}}", str(path))
    return word.replace("{model}", model)


def _refused_with_uri(
    command: str, uri: str, here: dict[str, Path], model: str, env: dict[str, str] | None = None
) -> str:
    job, *arguments = command.replace("{uri}", uri).split()
    return refused(f"jobs/{job}.py", *(_filled(word, here, model) for word in arguments), env=env)


def _find(value: object, part: str) -> str:
    """Return the first string in nested JSON whose key contains `part`."""
    if isinstance(value, dict):
        for key, item in value.items():
            if part in key and isinstance(item, str):
                return item
        return next((found for item in value.values() if (found := _find(item, part))), "")
    return ""
