"""API errors: one exception type and one JSON envelope for refusals and failures."""

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serve.protocol import ErrorBody, ErrorEnvelope

logger = logging.getLogger(__name__)

# The official client retries 408, 409, 429 and 5xx unless a header forbids it; only these can succeed later.
_TRANSIENT = frozenset({408, 429, 503})
_CODES = {404: "not_found", 405: "method_not_allowed"}


class ApiError(Exception):
    """Refused request: the message is one sentence with the value, what is allowed, and the fix."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s

    def response(self) -> JSONResponse:
        """Return the envelope, with headers that control the official client's retries."""
        envelope = ErrorEnvelope(
            error=ErrorBody(message=self.message, type=_type_of(self.status), param=self.param, code=self.code)
        )
        headers = {} if self.status in _TRANSIENT else {"x-should-retry": "false"}
        if self.retry_after_s is not None:
            headers["retry-after"] = str(self.retry_after_s)
        return JSONResponse(envelope.model_dump(), status_code=self.status, headers=headers)


def _type_of(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def install_error_handlers(app: FastAPI) -> None:
    """Make every error of `app` respond with the envelope, including errors of the framework."""

    @app.exception_handler(ApiError)
    async def _refused(_: Request, error: ApiError) -> JSONResponse:
        return error.response()

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        message = f"{request.method} {request.url.path}: {error.detail}."
        return ApiError(message, status=error.status_code, code=_CODES.get(error.status_code)).response()

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        param = str(first["loc"][-1])
        return ApiError(f"{param}: {first['msg']}.", code="invalid_value", param=param).response()

    @app.exception_handler(Exception)
    async def _crashed(request: Request, error: Exception) -> JSONResponse:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        message = "Internal error of the server; see its log."
        return ApiError(message, status=500, code="internal_error").response()
