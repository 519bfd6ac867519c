"""When is a step of the cascade done? When its record says so, for this configuration and this data.

A record is the last file that a step writes: `OUTPUT/stages/<name>.json`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from videogen import storage
from videogen.hashing import json_hash
from videogen.stages import CascadeConfig

# Settings that say how and where to compute, or how to sample later, and leave the trained weights as they are.
_OPERATIONAL = {"num_workers", "cpus_per_worker", "use_gpu", "checkpoint_every", "log_every"}
_AT_SAMPLING = {
    "sampling",
    "low_res_noise_at_sampling",
    "chunk_frames",
    "overlap_frames",
    "tile_size",
    "tile_overlap",
    "gradient_checkpointing",
}
_HASHED_AS = {"logit_std": "timestep_spread"}
"""Key -> its name when the first models were trained, under which it is hashed: a renamed key changes no identity."""
_SHARED = ("seed", "num_frames", "fps", "temporal_factor", "aspect_ratios", "diffusion", "text")


@dataclass(frozen=True)
class Identity:
    """What the result of a step depends on."""

    config_hash: str
    data_fingerprint: str
    init_from: str | None = None


@dataclass(frozen=True)
class Record:
    """A finished step."""

    step: str
    identity: Identity
    details: dict[str, Any] = field(default_factory=dict)


def config_hash(config: CascadeConfig, step: str) -> str:
    """Return a hash of the settings that the result of a step depends on; `step` is a section of the configuration."""
    values = config.model_dump(mode="json")
    section = config.stage_config(step).model_dump(mode="json")
    relevant = {
        "step": step,
        "section": _without(section, _OPERATIONAL | _AT_SAMPLING),
        "latents": [list(config.latent_sizes), values["autoencoder"]["model"], values["autoencoder"]["pretrained"]],
        **{name: values[name] for name in _SHARED if name in values},
    }
    return hash_of(relevant)


def hash_of(value: Any) -> str:
    """Return a short hash of plain values."""
    return json_hash(value, digits=12)


def is_done(output_uri: str, step: str, identity: Identity) -> bool:
    """Tell whether the step has finished with exactly this input."""
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
    """Declare a step finished; everything that it makes must have been written."""
    finished = {"finished_at": datetime.now(UTC).isoformat(timespec="seconds")}
    record = Record(step, identity, {**(details or {}), **finished})
    storage.write_json(_uri(output_uri, step), asdict(record))
    return record


def _uri(output_uri: str, step: str) -> str:
    return storage.join(output_uri, "stages", f"{step}.json")


def _without(values: Any, names: set[str]) -> Any:
    if not isinstance(values, dict):
        return values
    return {_HASHED_AS.get(name, name): _without(value, names) for name, value in values.items() if name not in names}
