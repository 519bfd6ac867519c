"""Configuration stored in a model folder, in `model_index.json`."""

from videogen import storage
from videogen.errors import UserError
from videogen.stages.cascade import CascadeConfig, config_from_dict

INDEX = "model_index.json"
NOT_THE_MODEL = ("stages/", "training/")
"""Folders of a model folder with training records and checkpoints, which using the model does not need."""


def load_cascade_config(folder: str) -> CascadeConfig:
    """Return the configuration that a model folder (local or URI) was trained with.

    Raises:
        UserError: it is not a finished model folder.
    """
    index = storage.join(folder, INDEX)
    storage.require_readable(folder, "Model folder")
    if not storage.exists(index):
        raise UserError(f"{folder!r} is not a finished model: it has no {INDEX}; finish jobs/train_cascade.py first.")
    described = storage.read_json(index)
    values = described.get("cascade") if isinstance(described, dict) else None
    if not isinstance(values, dict):
        raise UserError(f"{index!r} describes another kind of model: give a folder that jobs/train_cascade.py wrote.")
    return config_from_dict(values)
