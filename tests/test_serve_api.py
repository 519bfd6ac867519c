"""The HTTP face over real HTTP, with the official client; the engine renders the world, so jobs are quick.

The same API on the trained stages and Ray Serve is in test_serve_graph.py.
"""

import asyncio
import base64
import io
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import requests
import uvicorn
from PIL import Image

from serve.api import VideoService, build_api
from serve.config import ServeConfig
from serve.engine import (
    Event,
    Generation,
    GenerationFailed,
    ReferenceReady,
    StageFinished,
    StageStarted,
    VideoReady,
    WorkerLostError,
)
from serve.images import encode_png
from serve.requests import describe_model
from tests._documents import DOCUMENTS, Fence, fences
from videogen.data.synthetic import Attributes, parse_caption, render_clip
from videogen.data.video import probe, read_frames, write_mp4
from videogen.stages import CascadeConfig

pytestmark = pytest.mark.process

PROMPT = "a red circle moving left"
ENVELOPE = {"message", "type", "param", "code"}


class RenderingEngine:
    """Renders the prompt, stage by stage. Prompts outside the world fail; while `gate` is shut, jobs wait at `base`."""

    def __init__(self, stages: tuple[str, ...]) -> None:
        self.stages = stages
        self.gate = threading.Event()
        self.gate.set()
        self.left: list[str] = []
        self.lose_worker = 0
        self.references: list[np.ndarray | None] = []

    async def run(self, generation: Generation) -> AsyncGenerator[Event, None]:
        self.references.append(generation.reference_image)
        attributes = parse_caption(generation.prompt)
        try:
            for stage in self.stages:
                yield StageStarted(stage)
                if stage == "base" and self.lose_worker:
                    self.lose_worker -= 1
                    raise WorkerLostError("the machine was taken away")
                if stage == "base" and attributes is None:
                    yield GenerationFailed("stage_failed", f"Stage base failed: no world has {generation.prompt!r}")
                    return
                while stage == "base" and not self.gate.is_set():
                    await asyncio.to_thread(self.gate.wait, 0.01)
                if stage == "reference":
                    yield ReferenceReady(encode_png(clip_of(attributes, generation.seed)[0]))
                yield StageFinished(stage, 0.01, 1)
            yield VideoReady(write_mp4(clip_of(attributes, generation.seed), 16))
        finally:
            self.left.append(generation.job_id)


def clip_of(attributes: Attributes | None, seed: int) -> np.ndarray:
    return render_clip(attributes or Attributes("red", "circle", "left", "normal"), seed)


class Server:
    """The application on a port of the loopback interface, in a thread; `restart` is a new process in all but name."""

    def __init__(self, storage: Path, cascade: CascadeConfig, **options: Any) -> None:
        self.storage, self.cascade, self.options = storage, cascade, options
        self.start()

    def start(self) -> None:
        self.engine = RenderingEngine(self.cascade.stage_names())
        config = ServeConfig(storage=str(self.storage), **self.options)
        service = VideoService.open(describe_model(self.cascade), config, self.engine)
        self.uvicorn = uvicorn.Server(uvicorn.Config(build_api(service), port=0, log_level="error"))
        self.thread = threading.Thread(target=self.uvicorn.run)
        self.thread.start()
        wait_for(lambda: self.uvicorn.started)
        self.url = f"http://127.0.0.1:{self.uvicorn.servers[0].sockets[0].getsockname()[1]}"
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", api_key="unused", max_retries=0)

    def stop(self) -> None:
        self.client.close()
        self.uvicorn.should_exit = True
        self.thread.join(20)

    def wait(self, video_id: str, *statuses: str) -> Any:
        wait_for(lambda: self.client.videos.retrieve(video_id).status in statuses)
        return self.client.videos.retrieve(video_id)


def wait_for(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def server(tmp_path: Path, tiny: CascadeConfig) -> Iterator[Server]:
    server = Server(tmp_path, tiny, max_running_jobs=2, max_queued_jobs=3)
    yield server
    server.engine.gate.set()
    server.stop()


@pytest.fixture(scope="module")
def quiet_server(tmp_path_factory: pytest.TempPathFactory, tiny: CascadeConfig) -> Iterator[Server]:
    """One server for all tests that leave no job behind."""
    server = Server(tmp_path_factory.mktemp("serve"), tiny)
    yield server
    server.stop()


# --- the official client -----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "snippet",
    [fence for path in DOCUMENTS for fence in fences(path) if fence.setup == "service"],
    ids=lambda snippet: snippet.name,
)
def test_the_snippets_of_the_documents_run(
    snippet: Fence, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = snippet.text.replace("http://127.0.0.1:8000", server.url)
    assert text != snippet.text
    exec(compile(text, snippet.name, "exec"), {"__name__": "snippet"})
    assert [path for path in tmp_path.glob("*.mp4") if path.stat().st_size]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_official_client_creates_polls_downloads_lists_and_deletes(server: Server) -> None:
    videos = server.client.videos
    video: Any = videos.create_and_poll(prompt=PROMPT, extra_body={"seed": 3})  # with fields that the client lacks
    assert (video.status, video.progress, video.size, video.seconds) == ("completed", 100, "64x64", "0.9375")
    assert (video.seed, video.num_frames, video.fps) == (3, 15, 16.0)

    mp4 = videos.download_content(video.id).read()
    (server.storage / "copy.mp4").write_bytes(mp4)
    info = probe(str(server.storage / "copy.mp4"))
    assert (info.num_frames, info.fps, info.width, info.height) == (15, 16, 64, 64)
    expected = render_clip(parse_caption(PROMPT), 3)
    assert np.abs(read_frames(mp4, range(15), 64).astype(int) - expected).mean() < 4

    other = videos.create_and_poll(prompt=PROMPT)
    assert [item.id for item in videos.list(limit=1)] == [other.id, video.id]
    assert [item.id for item in videos.list(order="asc")] == [video.id, other.id]
    assert videos.delete(video.id).model_dump() == {"id": video.id, "deleted": True, "object": "video.deleted"}
    assert not (server.storage / "videos" / video.id).exists()
    with pytest.raises(openai.NotFoundError, match="There is no video"):
        videos.retrieve(video.id)


def test_nullable_fields_are_there_as_null_and_nothing_is_missing(server: Server) -> None:
    answer = requests.post(f"{server.url}/v1/videos", json={"prompt": PROMPT}).json()
    assert answer["object"] == "video"
    for name in ("completed_at", "expires_at", "error", "remixed_from_video_id"):
        assert answer[name] is None
    assert answer["status"] == "queued"
    assert answer["queue_position"] == 0
    again = server.wait(answer["id"], "completed")
    assert again.completed_at >= again.created_at
    assert again.seed == answer["seed"], "a seed that the server chose is told, and kept"


def test_status_stage_and_reference_image_are_shown_while_the_job_runs(server: Server) -> None:
    server.engine.gate.clear()
    first, second, third = (server.client.videos.create(prompt=PROMPT) for _ in range(3))
    running: Any = server.wait(first.id, "in_progress")
    server.wait(second.id, "in_progress")
    waiting: Any = server.client.videos.retrieve(third.id)
    assert (waiting.status, waiting.queue_position, waiting.started_at) == ("queued", 0, None)
    wait_for(lambda: server.client.videos.retrieve(first.id).model_dump()["stage"] == "base")
    running = server.client.videos.retrieve(first.id)
    assert 0 < running.progress < 100
    assert running.artifacts == ["reference"]
    png = server.client.videos.download_content(first.id, extra_query={"variant": "reference"}).read()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), clip_of(parse_caption(PROMPT), running.seed)[0])
    with pytest.raises(openai.ConflictError, match="not ready yet"):
        server.client.videos.download_content(first.id)
    server.engine.gate.set()
    assert server.wait(third.id, "completed").progress == 100


def test_a_failed_job_says_why(server: Server) -> None:
    video = server.client.videos.create_and_poll(prompt="a flying cathedral")
    assert (video.status, video.error.code) == ("failed", "stage_failed")
    assert "no world has" in video.error.message
    with pytest.raises(openai.NotFoundError, match="failed, so it has no video"):
        server.client.videos.download_content(video.id)


def test_deleting_a_running_job_stops_it_and_it_stays_deleted(server: Server) -> None:
    server.engine.gate.clear()
    video = server.client.videos.create(prompt=PROMPT)
    server.wait(video.id, "in_progress")
    server.client.videos.delete(video.id)
    assert server.engine.left == [video.id]
    server.engine.gate.set()
    after = server.client.videos.create_and_poll(prompt=PROMPT)
    assert [item.id for item in server.client.videos.list()] == [after.id]
    assert [folder.name for folder in (server.storage / "videos").iterdir()] == [after.id]


def test_a_lost_worker_is_replaced_but_not_for_ever(server: Server) -> None:
    server.engine.lose_worker = 2
    assert server.client.videos.create_and_poll(prompt=PROMPT).status == "completed"
    server.engine.lose_worker = 3
    video = server.client.videos.create_and_poll(prompt=PROMPT)
    assert (video.status, video.error.code) == ("failed", "worker_lost")


def test_jobs_survive_a_restart(server: Server) -> None:
    done = server.client.videos.create_and_poll(prompt=PROMPT)
    server.engine.gate.clear()
    image = encode_png(render_clip(parse_caption(PROMPT), 1)[0])
    running = server.client.videos.create(prompt=PROMPT, input_reference=("a.png", image), extra_body={"seed": 5})
    server.wait(running.id, "in_progress")
    server.stop()
    (server.storage / "videos" / "left_by_a_crash").mkdir()
    server.start()
    assert server.wait(running.id, "completed").seed == 5
    assert server.engine.references[0] is not None, "the uploaded image outlives the process, too"
    assert {item.id for item in server.client.videos.list()} == {done.id, running.id}
    assert server.client.videos.download_content(done.id).read()
    assert not (server.storage / "videos" / "left_by_a_crash").exists()


# --- refusals ----------------------------------------------------------------------------------------------------

BAD_FIELDS = [
    ({}, "prompt", "invalid_prompt", "prompt is missing"),
    ({"prompt": "  "}, "prompt", "invalid_prompt", "prompt is empty"),
    ({"prompt": "x" * 5000}, "prompt", "invalid_prompt", "at most 4000"),
    ({"prompt": PROMPT, "size": "1280x720"}, "size", "unsupported_size", "'64x64' only"),
    ({"prompt": PROMPT, "seconds": "8"}, "seconds", "unsupported_seconds", "'0.9375' only"),
    ({"prompt": PROMPT, "seconds": "soon"}, "seconds", "unsupported_seconds", "'0.9375' only"),
    ({"prompt": PROMPT, "seed": "-1"}, "seed", "invalid_value", "seed '-1'"),
    ({"prompt": PROMPT, "sed": "1"}, "sed", "unknown_parameter", "Did you mean 'seed'?"),
    ({"prompt": PROMPT, "input_reference": "cat.png"}, "input_reference", "input_reference_invalid", "uploaded file"),
]


@pytest.mark.parametrize("encoding", ["data", "json"])
@pytest.mark.parametrize(("fields", "param", "code", "message"), BAD_FIELDS)
def test_bad_fields_are_refused_in_the_envelope(
    quiet_server: Server, encoding: str, fields: dict[str, str], param: str, code: str, message: str
) -> None:
    answer = requests.post(f"{quiet_server.url}/v1/videos", **{encoding: fields or {"size": "64x64"}})
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert answer.headers["x-should-retry"] == "false"
    assert set(error) == ENVELOPE
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert message in error["message"]


def test_the_client_raises_our_sentence_and_does_not_repeat_it(quiet_server: Server) -> None:
    client = quiet_server.client.with_options(max_retries=2)
    with pytest.raises(openai.BadRequestError, match="this model makes '64x64' only") as caught:
        client.videos.create(prompt=PROMPT, size="1280x720")
    assert (caught.value.code, caught.value.param) == ("unsupported_size", "size")
    with pytest.raises(openai.NotFoundError, match="not served here: use 'videogen-tiny'"):
        client.videos.create(prompt=PROMPT, model="sora-2")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("PUT", "/v1/videos", 405),
        ("GET", "/v1/videos/video_none", 404),
        ("DELETE", "/v1/videos/video_none", 404),
        ("GET", "/v1/videos/video_none/content", 404),
        ("GET", "/v1/videos?limit=0", 400),
        ("GET", "/v1/videos?after=video_none", 400),
        ("GET", "/v1/videos/x/content?variant=thumbnail", 400),
        ("GET", "/v1/models/sora-2", 404),
    ],
)
def test_every_refusal_has_the_envelope(quiet_server: Server, method: str, path: str, status: int) -> None:
    answer = requests.request(method, quiet_server.url + path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == ENVELOPE
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/json", b"{", 400),
        ("application/json", b"[1]", 400),
        ("text/plain", b"a red circle", 415),
        ("multipart/form-data; boundary=x", b"no parts here", 400),
        ("multipart/form-data", b"--x", 400),
        ("application/json", b" " * (25 * 2**20), 413),
    ],
)
def test_unreadable_bodies_have_the_envelope(quiet_server: Server, content_type: str, body: bytes, status: int) -> None:
    answer = requests.post(f"{quiet_server.url}/v1/videos", data=body, headers={"content-type": content_type})
    assert answer.status_code == status
    assert set(answer.json()["error"]) == ENVELOPE


def test_a_full_queue_answers_429_and_when_to_come_back(server: Server) -> None:
    server.engine.gate.clear()
    for _ in range(2):
        server.wait(server.client.videos.create(prompt=PROMPT).id, "in_progress")
    for _ in range(3):
        server.client.videos.create(prompt=PROMPT)
    with pytest.raises(openai.RateLimitError, match="3 videos are already queued") as caught:
        server.client.videos.create(prompt=PROMPT)
    assert caught.value.code == "queue_full"
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 120
    assert "x-should-retry" not in caught.value.response.headers
    server.engine.gate.set()
    assert server.client.with_options(max_retries=2).videos.create(prompt=PROMPT).status == "queued"


# --- reference images --------------------------------------------------------------------------------------------


def test_an_uploaded_image_reaches_the_engine_as_pixels(server: Server) -> None:
    image = render_clip(parse_caption(PROMPT), 1)[0]
    png = encode_png(image)
    url = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    server.client.videos.create_and_poll(prompt=PROMPT, input_reference=("a.png", png, "image/png"))
    by_json = requests.post(f"{server.url}/v1/videos", json={"prompt": PROMPT, "input_reference": {"image_url": url}})
    server.wait(by_json.json()["id"], "completed")
    assert all(np.array_equal(seen, image) for seen in server.engine.references)
    assert len(server.engine.references) == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"GIF89a" + b"\0" * 64, "not a PNG, JPEG or WebP"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a PNG, JPEG or WebP"),
        (encode_png(np.zeros((64, 64, 3), np.uint8))[:60], "damaged|not a PNG"),
        (encode_png(np.zeros((10_000, 5_000, 3), np.uint8)), "10000 pixels, at most"),
        (b"\x89PNG" + b"\0" * (17 * 2**20), "bytes, at most"),
    ],
    ids=["empty", "gif", "svg", "cut", "too wide", "too many bytes"],
)
def test_bad_images_are_refused_with_the_reason(quiet_server: Server, content: bytes, reason: str) -> None:
    with pytest.raises(openai.BadRequestError, match=reason) as caught:
        quiet_server.client.videos.create(prompt=PROMPT, input_reference=("a.png", content, "image/png"))
    assert (caught.value.param, caught.value.code) == ("input_reference", "input_reference_invalid")
    assert quiet_server.client.videos.list().data == []


@pytest.mark.parametrize("url", ["http://169.254.169.254/secret", "file:///etc/passwd", "data:image/png;base64,!!!"])
def test_the_server_fetches_no_url_for_a_client(quiet_server: Server, url: str) -> None:
    body = {"prompt": PROMPT, "input_reference": {"image_url": url}}
    answer = requests.post(f"{quiet_server.url}/v1/videos", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "input_reference_invalid")


# --- content, models, page ---------------------------------------------------------------------------------------


def test_content_can_be_fetched_in_ranges(server: Server) -> None:
    video = server.client.videos.create_and_poll(prompt=PROMPT)
    url = f"{server.url}/v1/videos/{video.id}/content"
    whole = requests.get(url)
    part = requests.get(url, headers={"range": "bytes=10-19"})
    assert (whole.status_code, whole.headers["content-type"], whole.headers["accept-ranges"]) == (
        200,
        "video/mp4",
        "bytes",
    )
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole.content)}"
    assert requests.get(url, headers={"range": "bytes=999999999-"}).status_code == 416


def test_models_and_health_tell_what_is_served(quiet_server: Server, tiny: CascadeConfig) -> None:
    model: Any
    (model,) = quiet_server.client.models.list().data
    assert (model.id, model.size, model.seconds) == ("videogen-tiny", "64x64", "0.9375")
    assert tuple(model.stages) == tiny.stage_names()
    assert quiet_server.client.models.retrieve(model.id).id == model.id
    health = requests.get(f"{quiet_server.url}/health").json()
    assert health == {"status": "ok", "model": "videogen-tiny", "queued": 0, "in_progress": 0}


def test_the_model_s_own_size_and_duration_may_be_named(server: Server) -> None:
    video = server.client.videos.create(prompt=PROMPT, model="videogen-tiny", size="64x64", seconds="0.94")
    assert video.seconds == "0.9375"


def test_the_playground_is_one_page_that_loads_nothing_else(quiet_server: Server) -> None:
    page = requests.get(quiet_server.url)
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for foreign in ("http://", "https://", '<link rel="stylesheet', "<script src", "@import", "url("):
        assert foreign not in page.text
    for used in ("/v1/videos", "/v1/models", "?variant=reference", "/content"):
        assert used in page.text


def test_the_openapi_document_describes_both_forms_of_create(quiet_server: Server) -> None:
    document = requests.get(f"{quiet_server.url}/openapi.json").json()
    body = document["paths"]["/v1/videos"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}
    assert body["multipart/form-data"]["schema"]["properties"]["input_reference"]["format"] == "binary"
