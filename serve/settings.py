"""Settings from the command line: options and `--set a.b=c` to a validated `ServeConfig`."""

from collections.abc import Sequence
from typing import Any

import yaml
from pydantic import ValidationError

from serve.config import ServeConfig, StageServeConfig
from videogen.cli import suggest
from videogen.errors import UserError

_EXAMPLE = "base.num_gpus=1"
_SECTIONS = ("default_stage", "stages")


def build_config(overrides: Sequence[str] = (), **options: Any) -> ServeConfig:
    """Return the configuration of `options` with each of `overrides` set.

    `default_stage.num_gpus=1` goes to all stages, `base.num_gpus=1` to one, `max_queued_jobs=9` to the service.

    Raises:
        UserError: unknown key or invalid value. `prepare` checks whether the model has the stages.
    """
    service = dict(options)
    stages: dict[str, dict[str, Any]] = {"default_stage": {}}
    for override in overrides:
        name, key, value = _parse(override)
        (stages.setdefault(name, {}) if name else service)[key] = value
    default = stages.pop("default_stage")
    # Settings that a stage does not override come from default_stage.
    merged = {name: default | own for name, own in stages.items()}
    try:
        return ServeConfig(**service, default_stage=default, stages=merged)
    except ValidationError as error:
        raise UserError(_sentence(error, options)) from error


def _parse(override: str) -> tuple[str, str, Any]:
    """Return the stage (empty: the service itself), the key and the value of `stage.key=value`."""
    path, separator, text = override.partition("=")
    # `stages.base.x` is the path in ServeConfig; `base.x` is the short form.
    name, _, key = path.strip().removeprefix("stages.").rpartition(".")
    if not separator or not key:
        raise UserError(f"--set {override!r} must look like key=value, e.g. --set {_EXAMPLE}.")
    known = [*StageServeConfig.model_fields] if name else [k for k in ServeConfig.model_fields if k not in _SECTIONS]
    if key not in known:
        stage_key = not name and key in StageServeConfig.model_fields
        hint = f" Did you mean 'default_stage.{key}'?" if stage_key else suggest(key, known)
        raise UserError(f"There is no key {path.strip()!r} to --set.{hint} It may be {', '.join(known)}.")
    try:
        return name, key, yaml.safe_load(text)
    except yaml.YAMLError:
        return name, key, text


def _sentence(error: ValidationError, options: dict[str, Any]) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"] if part != "stages"]
    option = f"--{path[0]}" if path[0] in options else f"--set {'.'.join(path)}"
    # A rule about two values has the whole section as its input.
    given = "" if isinstance(first["input"], dict) else f" {first['input']!r}"
    return f"{option}{given} is not usable: {first['msg'].removeprefix('Value error, ').rstrip('.')}."
