"""The README's cluster section for real: `ray start --head`, then `ray job submit`, with token authentication on.

By it, one run from nothing to a report on generated videos with every URI on S3.
"""

import contextlib
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import load_job
from videogen import storage
from videogen.data.video import probe
from videogen.stages import load_cascade_config

ROOT = Path(__file__).resolve().parent.parent

Submit = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home folder in which `ray get-auth-token --generate` has left its token."""
    folder = tmp_path_factory.mktemp("home")
    subprocess.run(["ray", "get-auth-token", "--generate"], env=_environment(folder), check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def head(home: Path, s3_endpoint: str) -> Iterator[str]:
    """Run `ray start --head` in the checkout, on ports and in a folder of its own; return the dashboard's address.

    Its workers inherit the S3 server's variables.

    `--block` keeps it in the foreground, so that ending this one process ends this one cluster: `ray stop` would
    also stop every other cluster of the user.
    """
    temporary = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    dashboard, agent, client = _free_ports(3)
    command = ["ray", "start", "--head", "--block", "--num-cpus=2", "--port=0", f"--dashboard-port={dashboard}"]
    command += [f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"]
    command += ["--object-store-memory=200000000", f"--temp-dir={temporary}"]
    log = temporary / "start.log"
    # When told to end, a node otherwise waits half a minute for workers that nobody wants any more.
    environment = _environment(home) | {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        _wait_until_ready(f"{address}/api/version", process, log)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(temporary, ignore_errors=True)


@pytest.fixture(scope="module")
def submit(head: str, home: Path) -> Submit:
    """Return a function that runs `ray job submit` as a user would."""

    def run(*arguments: str, cwd: Path = ROOT, timeout_s: float = 120, **env: str) -> subprocess.CompletedProcess[str]:
        command = ["ray", "job", "submit", "--address", head, *arguments]
        return subprocess.run(
            command, cwd=cwd, env=_environment(home) | env, capture_output=True, text=True, timeout=timeout_s
        )

    return run


def test_without_the_token_a_job_is_refused(submit, tmp_path):
    refused = submit("--", "python", "-c", "print(1)", RAY_AUTH_MODE="disabled", HOME=str(tmp_path))
    assert refused.returncode != 0
    assert "authentication token" in refused.stderr


def test_a_job_trains_where_ray_was_started(submit, tmp_path, world_corpus):
    model = tmp_path / "model"
    relative = os.path.relpath(model, ROOT)
    what = ["--data", str(world_corpus), "--output", relative, "--stages", "autoencoder"]
    sizes = [f"autoencoder.training.{name}" for name in ("steps=2", "batch_size=1", "warmup_steps=0")]
    done = submit("--", "python", "jobs/train_cascade.py", *what, "--set", *sizes)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((model / "autoencoder").glob("*.safetensors"))
    assert (model / "stages" / "autoencoder.json").exists()


STAGES = ("autoencoder", "reference", "base", "upsample.0", "interpolate", "decode")
NUM_CLIPS, STEPS = 12, 2
FEW_STEPS = [
    f"{stage}.training.{setting}"
    for stage in STAGES
    for setting in (f"steps={STEPS}", "batch_size=1", "warmup_steps=1", f"log_every={STEPS}")
]


@pytest.mark.weight(250)
def test_without_data_the_whole_run_is_made_from_corpora_to_videos_and_report_on_s3(submit, s3, tiny, capsys):
    """The README's first command and the jobs after it, every URI on S3, with few steps, clips and small frames."""
    small = ["num_frames=2", "base.latent_size=4", "upsample.0.latent_size=8"]
    options = ["--output", f"{s3}/model", "--clips", str(NUM_CLIPS), "--set", *small, *FEW_STEPS]
    done = submit("--", "python", "jobs/train_cascade.py", *options, timeout_s=900)
    assert done.returncode == 0, done.stdout + done.stderr

    plan, _, rest = done.stdout.partition("model_index.json")
    for step in ("corpora", "text", "autoencoder", "encode_captioned", "encode_unlabeled", *tiny.stage_names()[1:]):
        assert re.search(rf"^{step} +to do ", plan, re.MULTILINE), f"{step} was not announced"
    assert "steps done now, 0 done before" in rest
    assert len(storage.list_files(f"{s3}/data/captioned", [".mp4"])) == NUM_CLIPS
    assert storage.list_files(f"{s3}/data/unlabeled", [".mp4"])
    for table in ("captioned", "unlabeled"):
        assert storage.list_files(f"{s3}/latents/{table}/shards", [".parquet"])
    index = storage.read_json(f"{s3}/model/model_index.json")
    for component in tiny.trainable_stages():
        assert component in index
        assert storage.list_files(f"{s3}/model/{component}", [".safetensors"]), component
        assert storage.read_json(f"{s3}/model/stages/{component}.json")["details"]["steps"] == STEPS
    assert load_cascade_config(f"{s3}/model").num_output_frames == 3

    # The latents that lie there now are data too, and the model's autoencoder is the one that made them.
    other = ["--data", f"{s3}/latents", "--output", f"{s3}/model", "--dry-run", "--set", *small, *FEW_STEPS]
    load_job("train_cascade").main(other)
    planned = capsys.readouterr().out
    assert re.search(rf"image VAE from {s3}/model", planned), planned
    assert "encode_captioned" not in planned

    prompts = pd.DataFrame({"id": ["one", "two"], "prompt": ["a red circle moving left", "a blue square moving up"]})
    storage.write_bytes(f"{s3}/prompts.parquet", prompts.to_parquet())
    generate = ["--model", f"{s3}/model", "--prompts", f"{s3}/prompts.parquet", "--output", f"{s3}/generated"]
    done = submit("--", "python", "jobs/generate.py", *generate, "--save-intermediates", timeout_s=300)
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = pd.read_parquet(io.BytesIO(storage.read_bytes(f"{s3}/generated/manifest.parquet"))).set_index("id")
    assert list(manifest["status"]) == ["ok", "ok"], manifest["error"].tolist()
    for name in ("one", "two"):
        video = probe(f"{s3}/generated/videos/{name}.mp4")
        assert (video.num_frames, video.width, video.height) == (3, 32, 32)
        assert manifest.loc[name, "num_frames"] == 3

    evaluate = ["--model", f"{s3}/model", "--data", f"{s3}/data", "--generated", f"{s3}/generated"]
    load_job("evaluate").main([*evaluate, "--output", f"{s3}/evaluation.json", "--max-clips", "2"])
    evaluation = storage.read_json(f"{s3}/evaluation.json")
    assert evaluation["num_prompts"] == 2
    for name in ("decoder_psnr_db", "image_decoder_psnr_db", "interpolation_psnr_db", "blend_psnr_db"):
        assert evaluation[name] > 0, name

    report = ["--model", f"{s3}/model", "--generated", f"{s3}/generated", "--evaluation", f"{s3}/evaluation.json"]
    load_job("report").main([*report, "--output", f"{s3}/report"])
    page = storage.read_text(f"{s3}/report/index.html")
    for shown in ("a red circle moving left", *(f'data-media="two/{name}"' for name in ("base", "upsample", "decode"))):
        assert shown in page, shown


def test_the_shipped_copy_takes_no_model(submit, tmp_path):
    """Ray removes its copy of the checkout, and whatever was trained into it."""
    shipped = ["--runtime-env", "jobs/runtime_env.yaml", "--", "python", "jobs/train_cascade.py", "--dry-run"]
    refused = submit(*shipped)
    assert refused.returncode != 0
    assert "error: --output 'runs/model' lies in the temporary copy" in refused.stdout
    assert "Traceback" not in refused.stdout

    done = submit(*shipped, "--output", str(tmp_path / "model"))
    assert done.returncode == 0, done.stdout + done.stderr
    for stage in ("autoencoder", "reference", "base", "upsample", "interpolate", "decode"):
        assert stage in done.stdout


def test_uncommitted_code_reaches_the_driver_and_the_workers(submit, tmp_path):
    copy = tmp_path / "checkout"
    unwanted = shutil.ignore_patterns(".*_cache", ".git", ".venv", "runs", "__pycache__", "tests", "docs")
    shutil.copytree(ROOT, copy, ignore=unwanted)
    for package in ("platform/videogen", "pipelines", "serve"):
        with (copy / package / "__init__.py").open("a") as file:
            file.write('\nUNCOMMITTED = "seen"\n')
    (copy / "jobs" / "where.py").write_text(
        "import ray\n"
        "def look(who):\n"
        "    import platform, pipelines, serve, videogen\n"
        "    seen = [module.UNCOMMITTED for module in (videogen, pipelines, serve)]\n"
        "    print(who, *seen, 'stdlib' if platform.system() else '')\n"
        "    return [who, *seen, 'stdlib' if platform.system() else '']\n"
        "ray.init()\n"
        "look('driver')\n"
        "print(*ray.get(ray.remote(look).remote('worker')))\n"
    )
    done = submit("--runtime-env", "jobs/runtime_env.yaml", "--", "python", "jobs/where.py", cwd=copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "driver seen seen seen stdlib" in done.stdout
    assert "worker seen seen seen stdlib" in done.stdout


def _environment(home: Path) -> dict[str, str]:
    """Return the environment of a user who has activated .venv and exported RAY_AUTH_MODE=token."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(home), "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    return environment


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2)
        except urllib.error.HTTPError:  # it answers, and wants the token
            return
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"ray start did not come up:\n{log.read_text()}")
