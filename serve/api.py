"""HTTP routes: a subset of the OpenAI Videos API, and the playground.

Routes only translate between HTTP and `VideoService`, so the same application runs in a Ray Serve replica or under any
ASGI server, with any `VideoEngine`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import FileResponse, HTMLResponse

from serve.artifacts import MEDIA_TYPES, Artifacts
from serve.config import ServeConfig
from serve.dispatcher import Dispatcher
from serve.engine import VideoEngine
from serve.errors import ApiError, install_error_handlers
from serve.images import encode_png
from serve.job_store import Job, JobNotFoundError, JobStore, new_job_id
from serve.protocol import (
    CreateVideo,
    Health,
    Model,
    ModelList,
    Variant,
    Video,
    VideoDeleted,
    VideoError,
    VideoList,
)
from serve.requests import complete, parse_fields, read_request, reference_image

# Interval of the official client's `poll`; its default is one second.
_POLL_AFTER_MS = 500
_PLAYGROUND = Path(__file__).with_name("playground.html")
# The page is one file, so the browser refuses to load anything else.
_PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class VideoService:
    """Components that the routes act on."""

    model: Model
    config: ServeConfig
    store: JobStore
    artifacts: Artifacts
    dispatcher: Dispatcher

    @classmethod
    def open(cls, model: Model, config: ServeConfig, engine: VideoEngine) -> "VideoService":
        """Open the job database and the artifacts below `config.storage`."""
        root = Path(config.storage)
        store = JobStore(root / "jobs.sqlite")
        artifacts = Artifacts(root / "videos")
        dispatcher = Dispatcher(
            store,
            artifacts,
            engine,
            stages=model.stages,
            max_running=config.max_running_jobs,
            max_attempts=config.max_attempts,
        )
        return cls(model, config, store, artifacts, dispatcher)


class VideoRoutes:
    """Route handlers."""

    def __init__(self, service: VideoService) -> None:
        self._service = service

    async def create(self, request: Request) -> Video:
        """Store a job and return it, queued."""
        service = self._service
        upload = await read_request(request)
        fields = parse_fields(upload.fields)
        new = complete(fields, service.model)
        image = await asyncio.to_thread(reference_image, fields, upload.image)
        job_id = new_job_id()
        # The image is written before the job, so that every stored job can run.
        if image is not None:
            await asyncio.to_thread(lambda: service.artifacts.write_input(job_id, encode_png(image)))
        job = service.store.add(new, job_id, max_queued=service.config.max_queued_jobs)
        if job is None:
            service.artifacts.remove(job_id)
            wait_s = service.dispatcher.estimated_wait_s()
            message = f"{service.config.max_queued_jobs} videos are already queued: try again in {wait_s} s."
            raise ApiError(message, status=429, code="queue_full", retry_after_s=wait_s)
        service.dispatcher.schedule()
        return self._video(job)

    async def retrieve(self, video_id: str, response: Response) -> Video:
        """Return the current state of a job."""
        response.headers["openai-poll-after-ms"] = str(_POLL_AFTER_MS)
        return self._video(self._job(video_id))

    async def list_videos(
        self,
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
    ) -> VideoList:
        """Return a page of jobs."""
        try:
            jobs, has_more = self._service.store.page(limit=limit, after=after, newest_first=order == "desc")
        except JobNotFoundError as error:
            raise ApiError(
                f"There is no video {after!r} to continue after.", code="not_found", param="after"
            ) from error
        videos = [self._video(job) for job in jobs]
        first_id, last_id = (videos[0].id, videos[-1].id) if videos else (None, None)
        return VideoList(data=videos, has_more=has_more, first_id=first_id, last_id=last_id)

    async def delete(self, video_id: str) -> VideoDeleted:
        """Cancel a job if it runs, and delete it with its files."""
        service = self._service
        self._job(video_id)
        await service.dispatcher.cancel(video_id)
        try:
            service.store.delete(video_id)
        except JobNotFoundError as error:
            # A concurrent request has deleted it.
            raise _not_found(video_id) from error
        service.artifacts.remove(video_id)
        return VideoDeleted(id=video_id)

    async def content(self, video_id: str, variant: Variant = "video") -> FileResponse:
        """Return a finished file; byte ranges let browsers seek."""
        job = self._job(video_id)
        path = self._service.artifacts.path(video_id, variant)
        if not path.is_file():
            raise _no_content(job, variant)
        return FileResponse(
            path,
            media_type=MEDIA_TYPES[variant],
            filename=f"{video_id}{path.suffix}",
            content_disposition_type="inline",
        )

    async def models(self) -> ModelList:
        """Return a list of the served model."""
        return ModelList(data=[self._service.model])

    async def model(self, model_id: str) -> Model:
        """Return the served model."""
        if model_id != self._service.model.id:
            message = f"The model {model_id!r} is not served here: use {self._service.model.id!r}."
            raise ApiError(message, status=404, code="model_not_found", param="model")
        return self._service.model

    async def health(self) -> Health:
        """Return the number of jobs; an answer means that the service accepts jobs."""
        store = self._service.store
        return Health(
            model=self._service.model.id, queued=store.count("queued"), in_progress=store.count("in_progress")
        )

    async def playground(self) -> HTMLResponse:
        """Return the playground page."""
        return HTMLResponse(_PLAYGROUND.read_text(), headers={"content-security-policy": _PAGE_POLICY})

    def _job(self, video_id: str) -> Job:
        try:
            return self._service.store.get(video_id)
        except JobNotFoundError as error:
            raise _not_found(video_id) from error

    def _video(self, job: Job) -> Video:
        failed = job.error_code is not None and job.error_message is not None
        return Video(
            id=job.id,
            status=job.status,
            progress=job.progress,
            created_at=int(job.created_at),
            completed_at=None if job.completed_at is None else int(job.completed_at),
            model=job.model,
            prompt=job.prompt,
            seconds=job.seconds,
            size=job.size,
            error=VideoError(code=job.error_code, message=job.error_message) if failed else None,
            negative_prompt=job.negative_prompt,
            seed=job.seed,
            fps=job.fps,
            num_frames=job.num_frames,
            stage=job.stage,
            started_at=None if job.started_at is None else int(job.started_at),
            queue_position=self._service.store.queue_position(job) if job.status == "queued" else None,
            artifacts=self._service.artifacts.available(job.id),
        )


def _not_found(video_id: str) -> ApiError:
    return ApiError(f"There is no video {video_id!r}.", status=404, code="not_found", param="video_id")


def _no_content(job: Job, variant: Variant) -> ApiError:
    if job.status in ("queued", "in_progress"):
        message = f"Video {job.id} is {job.status}: its {variant} is not ready yet, ask again later."
        return ApiError(message, status=409, code="not_ready", param="video_id")
    if job.status == "failed":
        message = f"Video {job.id} failed, so it has no {variant}: {job.error_message}"
        return ApiError(message, status=404, code="not_found", param="video_id")
    message = f"The {variant} of {job.id} is no longer stored."
    return ApiError(message, status=404, code="artifact_expired", param="video_id")


def build_api(service: VideoService) -> FastAPI:
    """Return the application; its lifespan resumes what an earlier process left, and stops what runs."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.dispatcher.resume()
        yield
        await service.dispatcher.close()
        service.store.close()

    app = FastAPI(title="VideoGen", version="1", lifespan=lifespan)
    install_error_handlers(app)
    routes = VideoRoutes(service)
    app.add_api_route("/", routes.playground, methods=["GET"], include_in_schema=False)
    app.add_api_route("/health", routes.health, methods=["GET"])
    app.add_api_route("/v1/models", routes.models, methods=["GET"])
    app.add_api_route("/v1/models/{model_id}", routes.model, methods=["GET"])
    app.add_api_route("/v1/videos", routes.create, methods=["POST"], openapi_extra=_request_body())
    app.add_api_route("/v1/videos", routes.list_videos, methods=["GET"])
    app.add_api_route("/v1/videos/{video_id}", routes.retrieve, methods=["GET"])
    app.add_api_route("/v1/videos/{video_id}", routes.delete, methods=["DELETE"])
    app.add_api_route("/v1/videos/{video_id}/content", routes.content, methods=["GET"], response_class=FileResponse)
    return app


def _request_body() -> dict[str, Any]:
    """Return the OpenAPI description of the body of `create`, which accepts JSON and form data."""
    as_json = CreateVideo.model_json_schema(ref_template="#/components/schemas/{model}")
    as_json.pop("$defs", None)
    image_url = {"type": "object", "properties": {"image_url": {"type": "string"}}, "required": ["image_url"]}
    as_form = {
        **as_json,
        "properties": as_json["properties"] | {"input_reference": {"type": "string", "format": "binary"}},
    }
    as_json = {**as_json, "properties": as_json["properties"] | {"input_reference": image_url}}
    content = {"application/json": {"schema": as_json}, "multipart/form-data": {"schema": as_form}}
    return {"requestBody": {"required": True, "content": content}}
