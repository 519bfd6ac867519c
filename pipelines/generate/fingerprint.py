"""Fingerprints of files, from sizes and times (on S3: ETags) without reading content."""

from collections.abc import Sequence

from videogen import storage
from videogen.hashing import short_hash
from videogen.stages import NOT_THE_MODEL

_MODEL_FILES = (".json", ".safetensors", ".txt", ".model")


def fingerprint(*uris: str, settings: Sequence[str] = ()) -> str:
    """Return a short hash that changes when a file under one of the URIs does, or a setting."""
    parts = list(settings)
    for uri in uris:
        parts += [f"{uri} {line}" for line in _lines(uri)]
    return _hash(parts)


def model_fingerprint(model: str, settings: Sequence[str] = ()) -> str:
    """Return the fingerprint of a model's weights and configurations, and of settings used with it."""
    lines = [line for line in _lines(model) if not line.startswith(NOT_THE_MODEL)]
    return _hash([*settings, *(line for line in lines if line.split(" ")[0].endswith(_MODEL_FILES))])


def _lines(uri: str) -> list[str]:
    filesystem, root = storage.fsspec_filesystem(uri)
    found = sorted(filesystem.find(root, detail=True).items())
    return [
        f"{path.removeprefix(root).lstrip('/')} {entry['size']} {entry.get('ETag') or entry.get('mtime')}"
        for path, entry in found
    ]


def _hash(parts: Sequence[str]) -> str:
    return short_hash("\n".join(parts), digits=16)
