"""Request validation: bytes of a request to a complete, valid job, or an `ApiError`."""

import json
import math
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import Request
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.datastructures import UploadFile
from starlette.types import Message

from serve.errors import ApiError
from serve.images import read_data_url, read_upload
from serve.job_store import NewJob
from serve.protocol import CreateVideo, Model
from videogen.cli import suggest
from videogen.stages import CascadeConfig

# The largest image as a JSON data URL (base64 adds a third), and room for the prompt.
MAX_BODY_BYTES = 24 * 2**20
_IMAGE = "input_reference"
# Tolerance for durations, which a client may round.
_SECONDS_TOLERANCE = 0.01


def describe_model(cascade: CascadeConfig) -> Model:
    """Return the API's description of a model."""
    return Model(
        id=f"videogen-{cascade.name}",
        created=int(time.time()),
        size=f"{cascade.resolution}x{cascade.resolution}",
        seconds=f"{cascade.num_output_frames / cascade.output_fps:g}",
        fps=cascade.output_fps,
        num_frames=cascade.num_output_frames,
        stages=cascade.stage_names(),
    )


@dataclass(frozen=True)
class Upload:
    """Parts of a request before validation."""

    fields: Mapping[str, Any]
    image: bytes | None


async def read_request(request: Request) -> Upload:
    """Read a multipart, form or JSON body of at most `MAX_BODY_BYTES`."""
    request = _limited(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
        return await _read_form(request)
    if kind == "application/json":
        return Upload(await _read_json(request), None)
    raise ApiError(
        f"Content-Type {kind!r} is not supported: send multipart/form-data or application/json.",
        status=415,
        code="unsupported_media_type",
    )


def _limited(request: Request) -> Request:
    """Return the request with a body that raises `ApiError` once it is too long, whatever its headers say.

    FastAPI's own `max_body_size` rejects some such requests without the error envelope.
    """
    num_bytes = 0

    async def receive() -> Message:
        nonlocal num_bytes
        message = await request.receive()
        num_bytes += len(message.get("body", b""))
        if num_bytes > MAX_BODY_BYTES:
            raise ApiError(
                f"The body has more than {MAX_BODY_BYTES} bytes: send a smaller image.",
                status=413,
                code="request_too_large",
            )
        return message

    return Request(request.scope, receive)


async def _read_json(request: Request) -> dict[str, Any]:
    try:
        fields = json.loads(await request.body())
    except ValueError as error:
        raise ApiError(f"The body is not valid JSON ({error}).", code="invalid_json") from error
    if not isinstance(fields, dict):
        raise ApiError('The body must be a JSON object such as {"prompt": "..."}.', code="invalid_json")
    return fields


async def _read_form(request: Request) -> Upload:
    fields: dict[str, Any] = {}
    image: bytes | None = None
    async with request.form(max_files=1, max_fields=32) as form:
        for name, value in form.multi_items():
            if name in fields or (name == _IMAGE and image is not None):
                raise ApiError(f"{name} is given more than once.", code="invalid_value", param=name)
            if not isinstance(value, UploadFile):
                fields[name] = value
            elif name == _IMAGE:
                image = await value.read()
            else:
                raise ApiError(
                    f"{name} is not a file field; send the image as {_IMAGE}.", code="invalid_value", param=name
                )
    return Upload(fields, image)


def parse_fields(fields: Mapping[str, Any]) -> CreateVideo:
    """Return the typed fields; raise `ApiError` for the first invalid one."""
    try:
        return CreateVideo.model_validate(dict(fields))
    except ValidationError as error:
        raise _explained(error.errors()[0], fields) from error


def _explained(error: ErrorDetails, fields: Mapping[str, Any]) -> ApiError:
    param = str(error["loc"][0])
    if error["type"] == "extra_forbidden" and len(error["loc"]) == 1:
        hint = suggest(param, CreateVideo.model_fields)
        return ApiError(f"Unknown parameter {param!r}.{hint}", code="unknown_parameter", param=param)
    if error["type"] == "missing" and param == "prompt":
        return ApiError("prompt is missing: describe the video.", code="invalid_prompt", param="prompt")
    if param == _IMAGE:
        message = f"{_IMAGE} must be an uploaded file, or in JSON an object with image_url."
        return ApiError(message, code="input_reference_invalid", param=param)
    code = "invalid_prompt" if param == "prompt" else "invalid_value"
    shown = str(fields.get(param))[:80]
    return ApiError(f"{param} {shown!r} is not usable: {error['msg']}.", code=code, param=param)


def complete(fields: CreateVideo, model: Model) -> NewJob:
    """Return the job with defaults filled in; raise `ApiError` if the model cannot do it."""
    if not fields.prompt.strip():
        message = "prompt is empty: describe the video."
        raise ApiError(message, code="invalid_prompt", param="prompt")
    if fields.model not in (None, model.id):
        message = f"The model {fields.model!r} is not served here: use {model.id!r}, or leave model out."
        raise ApiError(message, status=404, code="model_not_found", param="model")
    if fields.size not in (None, model.size):
        message = f"size {fields.size!r} is not supported: this model makes {model.size!r} only."
        raise ApiError(message, code="unsupported_size", param="size")
    if fields.seconds is not None and not _same_duration(fields.seconds, model.seconds):
        message = f"seconds {fields.seconds!r} is not supported: this model makes {model.seconds!r} only."
        raise ApiError(message, code="unsupported_seconds", param="seconds")
    return NewJob(
        model=model.id,
        prompt=fields.prompt,
        negative_prompt=fields.negative_prompt or "",
        seed=secrets.randbits(31) if fields.seed is None else fields.seed,
        size=model.size,
        seconds=model.seconds,
        fps=model.fps,
        num_frames=model.num_frames,
    )


def _same_duration(asked: str, own: str) -> bool:
    try:
        return math.isclose(float(asked), float(own), abs_tol=_SECONDS_TOLERANCE)
    except ValueError:
        return False


def reference_image(fields: CreateVideo, uploaded: bytes | None) -> np.ndarray | None:
    """Return the reference image as uint8 (H, W, 3), or None; slow for large images, so call it in a thread."""
    if uploaded is not None:
        return read_upload(uploaded)
    if fields.input_reference is not None:
        return read_data_url(fields.input_reference.image_url)
    return None
