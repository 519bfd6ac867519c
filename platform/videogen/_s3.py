"""S3 with patience: a stumble is tried again, and what is not overcome ends every job in one sentence."""

import errno
from typing import Any

import aiohttp
import botocore.exceptions
from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem

from videogen.errors import CredentialsError, StorageError

_REFUSALS = frozenset(
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
"""Codes that speak of the credentials as a whole; AccessDenied may be one object's own."""
_FORBIDDEN = "403"
"""What is left of a refusal in the answer to a HEAD, which has no body."""
_STUMBLES = frozenset({getattr(errno, "EREMOTEIO", errno.EIO), errno.EBUSY})
"""Error numbers that s3fs gives to answers such as 500 and 503."""
_BREAKS = (
    botocore.exceptions.ConnectionError,
    botocore.exceptions.HTTPClientError,
    aiohttp.ClientError,
    TimeoutError,
)
"""No answer, or a part of one."""
_WITHOUT_CREDENTIALS = (botocore.exceptions.NoCredentialsError, botocore.exceptions.CredentialRetrievalError)


class RetryingS3FileSystem(S3FileSystem):
    """S3 whose every request ends well, or in an error that says what to do.

    It is an `OSError` as before, so who knows better what to do about it still can; `FileNotFoundError`,
    `FileExistsError` and a plain `PermissionError` are answers, not failures, and pass unchanged.
    """

    async def _call_s3(self, method: str, *arguments: Any, **named: Any) -> Any:
        try:
            return await super()._call_s3(method, *arguments, **named)
        except (OSError, *_BREAKS, *_WITHOUT_CREDENTIALS) as error:
            code, said = _answer(error)
            if code == _FORBIDDEN:
                code, said = await self._reason(named.get("Bucket", ""))
            if code in _REFUSALS or isinstance(error, _WITHOUT_CREDENTIALS):
                raise CredentialsError(
                    f"S3 refuses the credentials ({said}): renew the variables AWS_ACCESS_KEY_ID, "
                    f"AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, then run the same command again."
                ) from error
            if isinstance(error, _BREAKS) or getattr(error, "errno", None) in _STUMBLES:
                raise StorageError(
                    f"S3 failed at every attempt ({said}): check the network and the variable AWS_ENDPOINT_URL, then "
                    f"run the same command again."
                ) from error
            raise

    call_s3 = sync_wrapper(_call_s3)

    async def _reason(self, bucket: str) -> tuple[str, str]:
        """Return why a request was forbidden, of a request whose answer says so."""
        try:
            await super()._call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)
        except (OSError, *_BREAKS) as error:
            return _answer(error)
        return "", ""


def _answer(error: BaseException) -> tuple[str, str]:
    """Return the code that S3 gave, if it is known, and the reason in one line."""
    told = getattr(error.__cause__, "response", {}).get("Error", {})
    reason = " ".join(str(told.get("Message") or error).split()).rstrip(".")
    return told.get("Code", ""), reason or type(error).__name__
