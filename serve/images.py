"""Uploaded reference images: untrusted bytes in, clean RGB pixels out."""

import base64
import binascii
import io
import re

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from serve.errors import ApiError

MAX_IMAGE_BYTES = 16 * 2**20
_MAX_PIXELS = 40_000_000
_FORMATS = ("PNG", "JPEG", "WEBP")
_PARAM = "input_reference"
_CODE = "input_reference_invalid"


def read_upload(content: bytes) -> np.ndarray:
    """Return an uploaded PNG, JPEG or WebP image as uint8 (H, W, 3), upright and without its metadata."""
    if not content:
        raise _invalid("the file is empty")
    if len(content) > MAX_IMAGE_BYTES:
        raise _invalid(f"the file has {len(content)} bytes, at most {MAX_IMAGE_BYTES} are allowed")
    try:
        # The type is read from the bytes; the declared content type is ignored.
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise _invalid(f"the image has {image.width}x{image.height} pixels, at most {_MAX_PIXELS} are allowed")
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError as error:
        raise _invalid("the file is not a PNG, JPEG or WebP image") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _invalid(f"the image is damaged ({error})") from error


def read_data_url(url: str) -> np.ndarray:
    """Return the image of a base64 data URL. Other URLs are refused: the server does not fetch."""
    match = re.fullmatch(r"data:image/[a-z+.-]+;base64,(.*)", url, flags=re.DOTALL)
    if match is None:
        raise _invalid("image_url must be a data URL such as data:image/png;base64,...; other URLs are not fetched")
    try:
        return read_upload(base64.b64decode(match[1], validate=True))
    except binascii.Error as error:
        raise _invalid("the data URL is not valid base64") from error


def encode_png(image: np.ndarray) -> bytes:
    """Return a uint8 (H, W, 3) image as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def decode_png(png: bytes) -> np.ndarray:
    """Return a PNG written by `encode_png` as uint8 (H, W, 3)."""
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


def _invalid(reason: str) -> ApiError:
    return ApiError(f"input_reference is not usable: {reason}.", param=_PARAM, code=_CODE)
