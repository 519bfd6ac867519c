"""`python -m serve` as a user runs it, and what it refuses."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
from pydantic import ValidationError

from serve.config import ServeConfig, StageServeConfig
from serve.job_store import JobStore
from serve.preflight import prepare
from serve.settings import build_config
from videogen.errors import UserError

NEW_JOB = "a blue square moving up"
ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.weight(80)
@pytest.mark.process
def test_a_running_service_answers_and_ends_clean_and_forgets_nothing(tiny_model: str, tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "serve", "--model", tiny_model, "--port", str(port), "--storage", str(tmp_path)]
    log = tmp_path / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 300
        while "Ctrl-C stops" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        assert f"curl http://127.0.0.1:{port}/v1/videos -F prompt=" in log.read_text()
        with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="unused") as client:
            video = client.videos.create_and_poll(prompt="a red circle moving left")
            assert video.status == "completed"
            unfinished = client.videos.create(prompt=NEW_JOB)
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0, log.read_text()
    finally:
        process.send_signal(signal.SIGTERM)  # no effect on one that has ended; Ray's processes end with it
        process.wait(120)
    assert "Traceback" not in log.read_text()
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{port}/health", timeout=5)
    assert (tmp_path / "videos" / video.id / "video.mp4").is_file()
    store = JobStore(tmp_path / "jobs.sqlite")
    assert store.get(video.id).status == "completed"
    assert store.get(unfinished.id).status in ("queued", "in_progress")


def test_bad_arguments_are_one_sentence_and_status_2(run_script: Callable[..., Any], tmp_path: Path) -> None:
    answer = run_script("-m", "serve", "--model", tmp_path / "absent", "--storage", tmp_path / "storage")
    assert answer.returncode == 2
    assert answer.stderr.startswith("error: The model ")
    assert "does not exist" in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert run_script("-m", "serve", "--model", tmp_path, "--port", "70000").returncode == 2


def config(tmp_path: Path, **options: Any) -> ServeConfig:
    return ServeConfig(**{"storage": str(tmp_path / "storage"), "port": free_port()} | options)


@pytest.mark.process
def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(UserError, match="empty folder"):
        prepare(str(folder), config(tmp_path))
    (folder / "model_index.json").write_text("{}")
    with pytest.raises(UserError, match="another kind of model"):
        prepare(str(folder), config(tmp_path))


def test_a_port_in_use_is_refused(tiny_model: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="choose another --port"):
            prepare(tiny_model, config(tmp_path, port=taken.getsockname()[1]))


def test_storage_must_be_a_local_folder(tiny_model: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be a local folder"):
        prepare(tiny_model, config(tmp_path, storage="s3://bucket/jobs"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write --storage"):
        prepare(tiny_model, config(tmp_path, storage=str(tmp_path / "file" / "folder")))


def test_settings_of_a_stage_that_the_model_lacks_are_refused(tiny_model: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'upsample'"):
        prepare(tiny_model, config(tmp_path, stages={"upsample_9": StageServeConfig()}))


def test_settings_from_the_command_line_reach_their_stage() -> None:
    overrides = ["default_stage.num_gpus=0.5", "base.max_replicas=4", "max_queued_jobs=9"]
    config = build_config(overrides, storage="runs/serve", port=9000)
    assert (config.port, config.max_queued_jobs) == (9000, 9)
    assert config.stage("text") == StageServeConfig(num_gpus=0.5)
    assert config.stage("base") == StageServeConfig(num_gpus=0.5, max_replicas=4)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("base.num_gpu=1", "There is no key 'base.num_gpu' to --set. Did you mean 'num_gpus'?"),
        ("num_gpus=1", "Did you mean 'default_stage.num_gpus'?"),
        ("base.num_gpus=many", "--set base.num_gpus 'many' is not usable: Input should be a valid number"),
        ("base.min_replicas=3", "--set base is not usable: min_replicas 3 exceeds max_replicas 2"),
        ("base", "must look like key=value"),
    ],
)
def test_mistyped_settings_are_refused(override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        build_config([override], storage="runs/serve")


def test_a_mistyped_setting_is_one_sentence_and_status_2(run_script: Callable[..., Any], tiny_model: str) -> None:
    answer = run_script("-m", "serve", "--model", tiny_model, "--set", "base.num_gpu=1")
    assert answer.returncode == 2
    assert answer.stderr.startswith("error: There is no key 'base.num_gpu'")
    assert answer.stderr.count("\n") == 1


def test_replicas_that_this_machine_cannot_place_are_refused(
    tiny_model: str, tmp_path: Path, run_script: Callable[..., Any]
) -> None:
    arguments = ("--model", tiny_model, "--storage", tmp_path, "--port", free_port())
    answer = run_script("-m", "serve", *arguments, "--set", "base.num_cpus=1000")
    assert answer.returncode == 2
    assert "error: The service needs 100" in answer.stderr


def test_serve_settings_are_checked() -> None:
    with pytest.raises(ValidationError, match="min_replicas 3 exceeds max_replicas 2"):
        StageServeConfig(min_replicas=3, max_replicas=2)
    with pytest.raises(ValidationError, match="Extra inputs"):
        StageServeConfig.model_validate({"replicas": 2})
