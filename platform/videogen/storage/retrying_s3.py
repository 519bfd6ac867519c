"""S3 filesystem with error translation: permanent failures become one sentence that says what to do."""

import errno
from typing import Any

import aiohttp
import botocore.exceptions
from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem

from videogen.errors import CredentialsError, StorageError

_CREDENTIAL_CODES = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
"""Error codes that concern the credentials as a whole; AccessDenied may concern a single object."""
_FORBIDDEN = "403"
"""Code of a refused HEAD request, whose response has no body with the real code."""
_SERVER_ERRORS = frozenset({getattr(errno, "EREMOTEIO", errno.EIO), errno.EBUSY})
"""Error numbers that s3fs assigns to responses such as 500 and 503."""
_CONNECTION_ERRORS = (
    botocore.exceptions.ConnectionError,
    botocore.exceptions.HTTPClientError,
    aiohttp.ClientError,
    TimeoutError,
)
"""No response, or an incomplete one."""
_CREDENTIAL_ERRORS = (botocore.exceptions.NoCredentialsError, botocore.exceptions.CredentialRetrievalError)


class RetryingS3FileSystem(S3FileSystem):
    """S3 filesystem that raises `CredentialsError` or `StorageError` for failures of the service.

    Both are an `OSError`, so callers can still handle them as one. `FileNotFoundError`, `FileExistsError` and a plain
    `PermissionError` are results, not failures, and are raised unchanged.
    """

    async def _call_s3(self, method: str, *arguments: Any, **named: Any) -> Any:
        try:
            return await super()._call_s3(method, *arguments, **named)
        except (OSError, *_CONNECTION_ERRORS, *_CREDENTIAL_ERRORS) as error:
            code, reason = _code_and_reason(error)
            if code == _FORBIDDEN:
                code, reason = await self._forbidden_reason(named.get("Bucket", ""))
            if code in _CREDENTIAL_CODES or isinstance(error, _CREDENTIAL_ERRORS):
                raise CredentialsError(
                    f"S3 refuses the credentials ({reason}): renew the variables AWS_ACCESS_KEY_ID, "
                    f"AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, then run the same command again."
                ) from error
            if isinstance(error, _CONNECTION_ERRORS) or getattr(error, "errno", None) in _SERVER_ERRORS:
                raise StorageError(
                    f"S3 failed at every attempt ({reason}): check the network and the variable AWS_ENDPOINT_URL, then "
                    f"run the same command again."
                ) from error
            raise

    call_s3 = sync_wrapper(_call_s3)

    async def _forbidden_reason(self, bucket: str) -> tuple[str, str]:
        """Return code and reason of a 403 by sending a request whose response has a body."""
        try:
            await super()._call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)
        except (OSError, *_CONNECTION_ERRORS) as error:
            return _code_and_reason(error)
        return "", ""


def _code_and_reason(error: BaseException) -> tuple[str, str]:
    """Return the error code from S3, if there is one, and the reason in one line."""
    details = getattr(error.__cause__, "response", {}).get("Error", {})
    reason = " ".join(str(details.get("Message") or error).split()).rstrip(".")
    return details.get("Code", ""), reason or type(error).__name__
