"""The service whole: trained stages as Ray Serve deployments, the official client, real HTTP."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import requests

from serve.config import ServeConfig, StageServeConfig
from serve.engine import Event, Generation, StageFinished, StageStarted, VideoReady
from serve.preflight import Plan, prepare
from videogen.data.video import read_frames
from videogen.stages import CascadeConfig

PROMPT = "a red circle moving left"
PROMPTS = (PROMPT, "a cyan triangle moving up slowly", "a yellow square moving down quickly", "something else")
SEEDS = (7, 8, 9, 2**40)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def service(ray_cluster: None, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plan]:
    from serve import launch

    # One replica a stage, and a first job that waits a little: jobs that come together then meet in a batch.
    stage = StageServeConfig(max_replicas=1, batch_wait_s=0.2)
    # The last stage may have three, which never start here: Serve looks for 30 s before it adds one.
    stages = {"decode": stage.model_copy(update={"max_replicas": 3})}
    folder = str(tmp_path_factory.mktemp("serve"))
    config = ServeConfig(port=free_port(), storage=folder, default_stage=stage, stages=stages)
    plan = prepare(tiny_model, config)
    service = launch.Service(shared=True)
    service.start(plan)
    yield plan
    service.stop()


@pytest.fixture(scope="module")
def client(service: Plan) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def in_process(tiny_model: str) -> list[np.ndarray]:
    """Return the frames of each prompt and seed, made one at a time by the pipeline: uint8 (F, H, W, 3)."""
    from videogen.pipeline import VideoGenPipeline

    pipeline = VideoGenPipeline.from_pretrained(tiny_model)
    return [pipeline(prompt, seed=seed).samples[0]["frames"] for prompt, seed in zip(PROMPTS, SEEDS, strict=True)]


def generation(index: int) -> Generation:
    return Generation(f"test_{index}", PROMPTS[index], "", SEEDS[index])


def test_each_stage_is_an_autoscaled_deployment(service: Plan, tiny: CascadeConfig) -> None:
    from ray.serve.context import _get_global_client

    from serve.launch import APP_NAME

    # What the controller runs by, which `serve status` shows too; the public status() leaves the settings out.
    deployments = _get_global_client().get_serve_details()["applications"][APP_NAME]["deployments"]
    assert set(deployments) == {"api", "runner", *tiny.stage_names()}
    assert all(deployment["status"] == "HEALTHY" for deployment in deployments.values())
    for name in tiny.stage_names():
        autoscaling = deployments[name]["deployment_config"].get("autoscaling_config")
        assert autoscaling, f"{name} has a fixed number of replicas"
        wanted = service.config.stage(name)
        most = 3 if name == "decode" else 1
        limits = (autoscaling["min_replicas"], autoscaling["max_replicas"])
        assert limits == (wanted.min_replicas, wanted.max_replicas) == (1, most)
        assert autoscaling["target_ongoing_requests"] == wanted.max_batch_size, "a replica is full with one batch"
    assert deployments["api"]["deployment_config"].get("autoscaling_config") is None


def test_one_prompt_and_seed_give_the_frames_of_the_pipeline_bit_for_bit(
    service: Plan, in_process: list[np.ndarray]
) -> None:
    from ray import serve as ray_serve

    from serve.launch import APP_NAME

    runner = ray_serve.get_deployment_handle("runner", APP_NAME)
    alone = runner.frames.remote(generation(0)).result(timeout_s=300)
    assert alone.dtype == np.uint8
    assert np.array_equal(alone, in_process[0])
    together = [runner.frames.remote(generation(index)) for index in range(len(PROMPTS))]
    for response, expected in zip(together, in_process, strict=True):
        assert np.array_equal(response.result(timeout_s=300), expected)


def test_concurrent_jobs_share_batches_and_report_each_stage_in_order(service: Plan, tiny: CascadeConfig) -> None:
    from ray import serve as ray_serve

    from serve.launch import APP_NAME

    runner = ray_serve.get_deployment_handle("runner", APP_NAME).options(stream=True)

    def events_of(index: int) -> list[Event]:
        return list(runner.run.remote(generation(index)))

    with ThreadPoolExecutor(len(PROMPTS)) as threads:
        all_events = list(threads.map(events_of, range(len(PROMPTS))))
    for events in all_events:
        assert [event.stage for event in events if isinstance(event, StageStarted)] == list(tiny.stage_names())
        assert isinstance(events[-1], VideoReady)
    for stage in tiny.stage_names():
        sizes = [event.batch_size for events in all_events for event in events if is_end_of(stage, event)]
        assert len(sizes) == len(PROMPTS)
        assert max(sizes) > 1, f"no two of four concurrent jobs shared a batch at {stage}"


def is_end_of(stage: str, event: Event) -> bool:
    return isinstance(event, StageFinished) and event.stage == stage


def test_the_official_client_gets_the_video_of_the_model(
    service: Plan, client: openai.OpenAI, in_process: list[np.ndarray]
) -> None:
    with ThreadPoolExecutor(len(PROMPTS)) as threads:
        videos = list(
            threads.map(
                lambda index: client.videos.create_and_poll(
                    prompt=PROMPTS[index], extra_body={"seed": SEEDS[index]}, timeout=300
                ),
                range(len(PROMPTS)),
            )
        )
    for video, expected in zip(videos, in_process, strict=True):
        assert (video.status, video.error) == ("completed", None)
        frames = read_frames(client.videos.download_content(video.id).read(), range(len(expected)), expected.shape[1])
        assert frames.shape == expected.shape
        # The codec's loss only. Untrained models make noise, which is the hardest thing to code.
        assert np.abs(frames.astype(int) - expected).mean() < 20
        png = client.videos.download_content(video.id, extra_query={"variant": "reference"}).read()
        assert png.startswith(b"\x89PNG")


def test_a_reference_image_of_one_s_own_is_used(service: Plan, client: openai.OpenAI, tmp_path: Path) -> None:
    from serve.images import decode_png, encode_png

    own = np.full((64, 64, 3), (200, 40, 40), np.uint8)
    video = client.videos.create_and_poll(prompt=PROMPT, input_reference=("own.png", encode_png(own)))
    png = client.videos.download_content(video.id, extra_query={"variant": "reference"}).read()
    assert np.array_equal(decode_png(png), own)


def test_deleting_a_running_job_frees_the_service(service: Plan, client: openai.OpenAI) -> None:
    video = client.videos.create(prompt=PROMPT)
    assert client.videos.delete(video.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve(video.id)
    assert client.videos.create_and_poll(prompt=PROMPT).status == "completed"


def test_a_refused_second_start_leaves_the_running_service_alone(
    service: Plan, run_script: Callable[..., Any], tmp_path: Path
) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    arguments = ("--model", service.model, "--port", free_port(), "--storage", tmp_path)
    answer = run_script("-m", "serve", *arguments, RAY_ADDRESS=address)
    assert answer.returncode == 2, answer.stderr
    assert answer.stderr.endswith("serves videogen already: stop that with `serve shutdown` first.\n")
    assert requests.get(f"{service.url}/health", timeout=10).ok


def test_the_head_node_needs_no_cpu_for_the_api(service: Plan) -> None:
    from serve.launch import build_app

    options = build_app(service)._bound_deployment.ray_actor_options
    assert options["resources"] == {"node:__internal_head__": 0.001}
    assert options["num_cpus"] == 0, "cluster.yaml gives its head none"


def test_only_this_machine_can_reach_the_service(service: Plan) -> None:
    port = f"{service.config.port:04X}"
    listening = "0A"
    rows = [row.split() for table in ("tcp", "tcp6") for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    addresses = {row[1] for row in rows if row[1].endswith(f":{port}") and row[3] == listening}
    assert addresses == {f"0100007F:{port}"}, "127.0.0.1, as Linux writes it, and nothing else"


def test_the_playground_is_served_at_the_root(service: Plan) -> None:
    page = requests.get(service.url, timeout=10)
    assert page.headers["content-type"].startswith("text/html")
    assert "Make video" in page.text
