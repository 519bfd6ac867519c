"""Short SHA-256 hashes of text, bytes and JSON values: the ids and fingerprints of the whole platform."""

import hashlib
import json

__all__ = ["content_hash", "json_hash", "short_hash"]


def short_hash(data: str | bytes, digits: int = 20) -> str:
    """Return the first hexadecimal digits of the SHA-256 of bytes, or of text as UTF-8."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()[:digits]


def json_hash(value: object, digits: int = 20) -> str:
    """Return a hash of one JSON value; the order of an object's keys does not count."""
    return short_hash(json.dumps(value, sort_keys=True), digits)


def content_hash(*parts: object) -> str:
    """Return a hash of several JSON values, 20 hexadecimal digits: the id of what they describe."""
    return json_hash(parts)
