"""Reading a shard from storage that fails now and then: what is worth another attempt, and what is said in the end."""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from videogen import storage
from videogen.errors import UserError

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

_ATTEMPTS = 4
_FIRST_WAIT_S = 0.5
_NETWORK_LIBRARIES = {"aiobotocore", "aiohttp", "botocore", "urllib3"}
"""Their exceptions reach us as they are, and not all of them are `OSError`."""


class ShardReadError(OSError):
    """Storage does not give a shard, after as many attempts as are made; a later run may succeed."""


def read_shard(
    uri: str, read: Callable[[], Value], attempts: int = _ATTEMPTS, first_wait_s: float = _FIRST_WAIT_S
) -> Value:
    """Return `read()`, which reads of the shard at `uri`; when storage fails, wait, twice as long each time, and retry.

    Raises:
        ShardReadError: storage fails at every attempt, or does not let us read.
        UserError: the shard is damaged or gone.
    """
    for attempt in range(1, attempts + 1):
        try:
            return read()
        except Exception as error:
            if not (_is_damage(error) or _is_of_storage(error)):
                raise
            reason = f"{type(error).__name__}: {' '.join(str(error).split()).rstrip('.')}"
            if isinstance(error, FileNotFoundError):
                raise UserError(
                    f"Shard {uri!r} is gone although its table names it: do not change a table that is in use; restore "
                    f"the shard or make the table again."
                ) from error
            # A transfer that was cut off may look like damage, hence a second look.
            if _is_damage(error) and attempt > 1:
                raise UserError(f"Shard {uri!r} is damaged ({reason}): remove it and make the table again.") from error
            if attempt == attempts or isinstance(error, PermissionError):
                raise ShardReadError(
                    f"shard {uri!r} cannot be read after {attempt} attempts ({reason}): check "
                    f"{'the network and the credentials' if storage.is_remote(uri) else 'the disk'}, then start again"
                ) from error
            wait_s = first_wait_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
            logger.warning("%s: %s; attempt %d of %d in %.1f s", uri, reason, attempt + 1, attempts, wait_s)
            time.sleep(wait_s)
    raise ValueError(f"attempts must be at least 1, not {attempts}")


def _is_damage(error: Exception) -> bool:
    import pyarrow as pa

    # Arrow's own complaints about bytes are ArrowInvalid, or a plain OSError without an error number.
    return isinstance(error, pa.ArrowInvalid) or (type(error) is OSError and error.errno is None)


def _is_of_storage(error: Exception) -> bool:
    # A `StorageError` is both a `UserError` and an `OSError`, and may pass.
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in _NETWORK_LIBRARIES
