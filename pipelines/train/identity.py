"""Identity of a trained stage: hashes of the settings, the data and the initial weights that its result depends on."""

from collections.abc import Sequence
from typing import Any

from pipelines.runner.step_records import Identity, hash_of
from videogen.stages import CascadeConfig
from videogen.training.datasets import data_fingerprint

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


def identity(config: CascadeConfig, stage: str, data_uris: Sequence[str], init_from: str | None = None) -> Identity:
    """Return the identity of a trained stage. Reads the manifests of the data (for raw corpora, lists their files)."""
    return Identity(config_hash(config, stage), data_fingerprint(stage, data_uris, config), init_from)


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


def _without(values: Any, names: set[str]) -> Any:
    if not isinstance(values, dict):
        return values
    return {_HASHED_AS.get(name, name): _without(value, names) for name, value in values.items() if name not in names}
