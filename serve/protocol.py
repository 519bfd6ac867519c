"""Wire models: the start of the OpenAI Videos API, as its official client reads and writes it.

Fields under "ours" are additions that the client keeps as attributes. Nullable fields are always present, as null.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

JobStatus = Literal["queued", "in_progress", "completed", "failed"]
Variant = Literal["video", "reference"]


class WireModel(BaseModel):
    """What every message shares: unknown fields are our own mistake, so they are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ErrorBody(WireModel):
    """What went wrong; the client raises it with exactly these four fields."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorEnvelope(WireModel):
    """The body of every answer that is not a success."""

    error: ErrorBody


class InputReference(WireModel):
    """The JSON form of a reference image (a multipart request sends the file itself)."""

    image_url: str = Field(description="data:image/png;base64,... (also JPEG and WebP)")


class CreateVideo(WireModel):
    """What `POST /v1/videos` accepts, as JSON or as flat form fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    prompt: str = Field(max_length=4000, description="what the video shows")
    model: str | None = Field(default=None, description="the served model, if given")
    seconds: str | None = Field(default=None, description="the model's own duration, if given")
    size: str | None = Field(default=None, description="the model's own WxH, if given")
    input_reference: InputReference | None = Field(default=None, description="an image that the video starts from")
    # Ours.
    seed: int | None = Field(default=None, ge=0, lt=2**63, description="same prompt and seed, same frames")
    negative_prompt: str | None = Field(default=None, max_length=4000, description="what the video shall not show")


class VideoError(WireModel):
    """Why a job failed."""

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
    # Ours.
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
    """The answer to a deletion."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: Literal[True] = True


class Model(WireModel):
    """The served model, with what a request may ask of it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "videogen"
    # Ours.
    size: str
    seconds: str
    fps: float
    num_frames: int
    stages: tuple[str, ...]


class ModelList(WireModel):
    """Every served model."""

    object: Literal["list"] = "list"
    data: list[Model]


class Health(WireModel):
    """Whether the service runs, and how much it has to do."""

    status: Literal["ok"] = "ok"
    model: str
    queued: int
    in_progress: int
