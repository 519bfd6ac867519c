"""Wire models: a subset of the OpenAI Videos API, as its official client reads and writes it.

Fields under "ours" are additions that the client keeps as attributes. Nullable fields are always present, as null.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

JobStatus = Literal["queued", "in_progress", "completed", "failed"]
Variant = Literal["video", "reference"]


class WireModel(BaseModel):
    """Base of all messages; unknown fields are programming errors, so they are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ErrorBody(WireModel):
    """Error; the client raises it with exactly these four fields."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorEnvelope(WireModel):
    """Body of every unsuccessful response."""

    error: ErrorBody


class InputReference(WireModel):
    """JSON form of a reference image (a multipart request sends the file itself)."""

    image_url: str = Field(description="data:image/png;base64,... (also JPEG and WebP)")


class CreateVideo(WireModel):
    """Body of `POST /v1/videos`, as JSON or as flat form fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    prompt: str = Field(max_length=4000, description="text that the video shows")
    model: str | None = Field(default=None, description="name of the served model")
    seconds: str | None = Field(default=None, description="duration; only the model's own is accepted")
    size: str | None = Field(default=None, description="frame size WxH; only the model's own is accepted")
    input_reference: InputReference | None = Field(default=None, description="image that the video starts from")
    # Extensions of this service.
    seed: int | None = Field(default=None, ge=0, lt=2**63, description="same prompt and seed, same frames")
    negative_prompt: str | None = Field(default=None, max_length=4000, description="content to avoid")


class VideoError(WireModel):
    """Reason for a failed job."""

    code: str
    message: str


class Video(WireModel):
    """One video job. Times are Unix seconds."""

    id: str
    object: Literal["video"] = "video"
    status: JobStatus
    progress: int
    created_at: int
    completed_at: int | None = None
    expires_at: int | None = None
    model: str
    prompt: str | None
    seconds: str
    size: str
    error: VideoError | None = None
    remixed_from_video_id: str | None = None
    # Extensions of this service.
    negative_prompt: str
    seed: int
    fps: float
    num_frames: int
    stage: str | None = None
    started_at: int | None = None
    queue_position: int | None = None
    artifacts: tuple[Variant, ...] = ()


class VideoList(WireModel):
    """One page of jobs. `last_id` drives the client's pagination: without it, listing silently ends."""

    object: Literal["list"] = "list"
    data: list[Video]
    has_more: bool
    first_id: str | None
    last_id: str | None


class VideoDeleted(WireModel):
    """Response to a deletion."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: Literal[True] = True


class Model(WireModel):
    """Served model, with its limits for requests."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "videogen"
    # Extensions of this service.
    size: str
    seconds: str
    fps: float
    num_frames: int
    stages: tuple[str, ...]


class ModelList(WireModel):
    """List of served models."""

    object: Literal["list"] = "list"
    data: list[Model]


class Health(WireModel):
    """State of the service and number of its jobs."""

    status: Literal["ok"] = "ok"
    model: str
    queued: int
    in_progress: int
