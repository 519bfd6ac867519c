"""Prompts table: its columns, one request per row, and default ids and seeds."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from videogen import storage
from videogen.cli import suggest
from videogen.data.datasets.columns import Column
from videogen.errors import UserError
from videogen.stages import new_sample

COLUMN_MEANINGS = {
    "prompt": Column("what the video shows; required, not empty"),
    "id": Column("name of the video file, unique; default: a hash of the row"),
    "seed": Column("whole number from 0 to 2**63 - 1; default: from the id"),
    "negative_prompt": Column("what the video shall not show; default: empty"),
    "reference_image": Column("image that the video starts from: its bytes, or a URI; default: generated"),
}
COLUMNS = tuple(COLUMN_MEANINGS)
"""Columns that are read of a prompts table; others are left alone."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MAX_SEED = 2**63 - 1
_BATCH_ROWS = 256
_IMAGES_AT_ONCE = 32
"""Images whose version is asked for together: each costs one round trip to S3."""


@dataclass(frozen=True)
class Request:
    """Request for one video. `reference_image` is the content of an image file or its URI."""

    id: str
    prompt: str
    seed: int
    negative_prompt: str = ""
    reference_image: str | bytes | None = None
    digest: str = ""
    """Hash of everything above and, from `read_requests`, of the version of the image at a URI: equal digests, equal
    videos."""


def read_requests(uri: str) -> list[Request]:
    """Read and validate a prompts table: a parquet file or a folder of them.

    Images are hashed for the ids and then dropped, so that millions of rows fit in memory.

    Raises:
        UserError: unreadable, no `prompt` column, no rows, an empty prompt, a bad or repeated id, a bad seed.
    """
    requests: dict[str, Request] = {}
    images: dict[str, str] = {}
    for number, row in enumerate(_rows(uri), start=1):
        where = f"row {number} of prompts {uri!r}" + (f" (id {row['id']!r})" if _given(row.get("id")) else "")
        try:
            request = request_of(row)
        except UserError as error:
            raise UserError(f"In {where}: {error}") from None
        if request.id in requests:
            cause = "its id is used above" if _given(row.get("id")) else "prompt and seed are the same as above"
            raise UserError(f"In {where}: {cause} and two videos would share a name: give it another id or seed.")
        if isinstance(request.reference_image, str):
            images[request.id] = request.reference_image
        requests[request.id] = replace(request, reference_image=None)
    if not requests:
        raise UserError(f"Prompts {uri!r} have no rows: add at least one prompt.")
    for name, version in zip(images, _versions(list(images.values())), strict=True):
        requests[name] = replace(requests[name], digest=_digest(requests[name].digest, version))
    return list(requests.values())


def _versions(uris: Sequence[str]) -> list[str]:
    """Return the versions of images; "" for one that cannot be reached, whose row fails later with the reason."""

    def version(uri: str) -> str:
        try:
            return storage.version(uri)
        except Exception:  # noqa: BLE001 as where the image is read: storage fails in many ways, each is the row's alone
            return ""

    with ThreadPoolExecutor(_IMAGES_AT_ONCE) as pool:
        return list(pool.map(version, uris))


def request_of(row: Mapping[str, Any]) -> Request:
    """Return the request of a row; a pure function of the row, independent of file, order and partition.

    Raises:
        UserError: an invalid value; the message does not name the row.
    """
    prompt = row["prompt"]
    if _given(prompt) and not isinstance(prompt, str):
        raise UserError(f"prompt is {prompt!r}, which is not text: write a sentence.")
    negative = row.get("negative_prompt")
    negative = negative if _given(negative) else ""
    if not isinstance(negative, str):
        raise UserError(f"negative_prompt is {negative!r}, which is not text: write text or leave it out.")
    image = row.get("reference_image")
    if isinstance(image, Mapping):  # how Hugging Face datasets store an image
        image = image.get("bytes") or image.get("path")
    image = None if image in ("", b"") or not _given(image) else image
    if not isinstance(image, str | bytes | None):
        raise UserError(f"reference_image is a {type(image).__name__}: give an image file's bytes or its URI.")
    seed = _seed(row.get("seed"))
    # The same validation as in process and in the service. The image is validated when it is read.
    new_sample(prompt, seed or 0, negative)
    content = (prompt, negative, "" if seed is None else str(seed), image or "")
    name = str(row["id"]) if _given(row.get("id")) else _digest(*content)
    if not _ID.fullmatch(name):
        raise UserError(
            f"the id {name!r} cannot name a file: use up to 128 letters, digits, dots, dashes and underscores."
        )
    if seed is None:
        seed = int.from_bytes(hashlib.sha256(f"seed {name}".encode()).digest()[:8]) >> 1
    return Request(name, prompt, seed, negative, image, _digest(name, *content))


def _given(value: object) -> bool:
    # A NaN is how pandas writes a missing value into a column of numbers.
    return value is not None and value == value


def _seed(value: Any) -> int | None:
    if not _given(value):
        return None
    # pandas also turns a column of whole numbers with a gap into floats.
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= _MAX_SEED or value != int(value):
        raise UserError(f"the seed is {value!r}: use a whole number from 0 to 2**63 - 1, or leave it out.")
    return int(value)


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        # The length keeps ("ab", "c") and ("a", "bc") apart.
        digest.update(len(data).to_bytes(8) + data)
    return digest.hexdigest()[:16]


def parquet_files(uri: str) -> list[str]:
    """Return the parquet files at a prompts URI."""
    storage.require_readable(uri, "Prompts")
    if not storage.is_dir(uri):
        return [storage.absolute(uri)]
    files = storage.list_files(uri, [".parquet"])
    if not files:
        raise UserError(f"Prompts {uri!r} are a folder without a .parquet file: write the prompts there as parquet.")
    return files


def present_columns(files: Sequence[str]) -> list[str]:
    """Return which of `COLUMNS` the parquet files of a table have.

    Raises:
        UserError: not parquet, no `prompt` column, or not the same columns in all files.
    """
    first = _columns_of(files[0])
    for file in files[1:]:
        # A column missing in one file would make ids depend on the reader.
        if (columns := _columns_of(file)) != first:
            raise UserError(
                f"Prompts {files[0]!r} have the columns {', '.join(first)} and {file!r} {', '.join(columns)}: "
                f"write all files with the same columns."
            )
    return first


def _columns_of(file: str) -> list[str]:
    filesystem, path = storage.arrow_filesystem(file)
    try:
        names = pq.read_schema(path, filesystem=filesystem).names
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"Prompts {file!r} are not a parquet file ({reason}): convert them to parquet.") from error
    if "prompt" not in names:
        raise UserError(
            f"Prompts {file!r} have no column 'prompt', only {', '.join(map(repr, names)) or 'none at all'}: "
            f"name the column with the sentences 'prompt'.{suggest('prompt', names)}"
        )
    return [name for name in COLUMNS if name in names]


def _rows(uri: str) -> Iterator[dict[str, Any]]:
    files = parquet_files(uri)
    columns = present_columns(files)
    for file in files:
        filesystem, path = storage.arrow_filesystem(file)
        with filesystem.open_input_file(path) as opened:
            for batch in pq.ParquetFile(opened).iter_batches(_BATCH_ROWS, columns=columns):
                yield from batch.to_pylist()
