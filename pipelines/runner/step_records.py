"""Records of finished steps: `OUTPUT/stages/<name>.json`, the last file that a step writes.

A step is done if its record has the same identity: the same configuration, data and initial weights.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from videogen import storage
from videogen.hashing import json_hash


@dataclass(frozen=True)
class Identity:
    """Inputs that determine the result of a step."""

    config_hash: str
    data_fingerprint: str
    init_from: str | None = None


@dataclass(frozen=True)
class Record:
    """Record of a finished step."""

    step: str
    identity: Identity
    details: dict[str, Any] = field(default_factory=dict)


def hash_of(value: Any) -> str:
    """Return a short hash of plain values."""
    return json_hash(value, digits=12)


def is_done(output_uri: str, step: str, identity: Identity) -> bool:
    """Return whether the step has finished with exactly this identity."""
    record = read(output_uri, step)
    return record is not None and record.identity == identity


def read(output_uri: str, step: str) -> Record | None:
    """Return the record of a finished step, or None."""
    uri = _uri(output_uri, step)
    if not storage.exists(uri):
        return None
    values = storage.read_json(uri)
    return Record(values["step"], Identity(**values["identity"]), values["details"])


def write(output_uri: str, step: str, identity: Identity, details: Mapping[str, Any] | None = None) -> Record:
    """Record a step as finished; all of its output must have been written."""
    finished = {"finished_at": datetime.now(UTC).isoformat(timespec="seconds")}
    record = Record(step, identity, {**(details or {}), **finished})
    storage.write_json(_uri(output_uri, step), asdict(record))
    return record


def _uri(output_uri: str, step: str) -> str:
    return storage.join(output_uri, "stages", f"{step}.json")
