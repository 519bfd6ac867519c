"""From a preset's name and `a.b=c` overrides to a checked `CascadeConfig`."""

import os
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

import pydantic
import yaml

from videogen.cli import suggest
from videogen.config.cascade import CascadeConfig
from videogen.errors import UserError


class _Loader(yaml.SafeLoader):
    """YAML in which 16:9 is a text, as in today's YAML; that of 2005 counts it to base 60."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as in the class above
        first: [("tag:yaml.org,2002:str", re.compile(r"[-+]?[\d.]+(:[\d.]+)+$")), *resolvers]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _read_yaml(text: str) -> Any:
    return yaml.load(text, _Loader)  # noqa: S506 - it is a safe loader


def preset_names() -> list[str]:
    """Return the presets that ship with the package."""
    folder = resources.files("videogen.config") / "presets"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_preset(name: str, overrides: Sequence[str] = ()) -> CascadeConfig:
    """Return a preset by name, or the one in a YAML file, with overrides applied.

    Raises:
        UserError: unknown preset or key, or a value that does not fit; names the nearest right one.
    """
    if name in preset_names():
        text = (resources.files("videogen.config") / "presets" / f"{name}.yaml").read_text()
    elif name.endswith((".yaml", ".yml")):
        if not os.path.isfile(name):
            raise UserError(f"Preset file {name!r} does not exist: check the path, or use {_choices()}.")
        try:
            with open(name, encoding="utf-8") as file:
                text = file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"Preset file {name!r} cannot be read ({error}): give a file of UTF-8 text.") from error
    else:
        hint = suggest(name, preset_names())
        raise UserError(f"There is no preset {name!r}.{hint} Use {_choices()}, or a .yaml file.")
    try:
        values = _read_yaml(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"Preset file {name!r} is not YAML ({' '.join(str(error).split())}): mend it.") from error
    if not isinstance(values, dict):
        raise UserError(f"Preset file {name!r} must hold a mapping of sections such as `base:`.")
    return _build({**values}, overrides, origin=f"preset {name!r}")


def apply_overrides(config: CascadeConfig, overrides: Sequence[str]) -> CascadeConfig:
    """Return `config` with each `a.b=c` of `overrides` set; `upsample.0.x=c` or `upsample.x=c` address its stages."""
    return _build(config.model_dump(mode="json"), overrides, origin="the configuration") if overrides else config


def config_from_dict(values: dict[str, Any]) -> CascadeConfig:
    """Return the configuration that `model_dump(mode="json")` gave."""
    return _build(values, (), origin="the model's configuration")


def _choices() -> str:
    *first, last = preset_names()
    return f"{', '.join(first)} or {last}" if first else last


def _build(values: dict[str, Any], overrides: Sequence[str], origin: str) -> CascadeConfig:
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise UserError(f"Override {override!r} must look like key=value, e.g. base.training.steps=500.")
        try:
            value = _read_yaml(text)
        except (yaml.YAMLError, RecursionError):
            value = text
        _set(values, key.strip(), value)
    try:
        return CascadeConfig.model_validate(values)
    except pydantic.ValidationError as error:
        raise UserError(_sentence(error, origin)) from error


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    if path and path[0] == "upsample" and isinstance(values.get("upsample"), list) and not _is_index(path, last):
        for index in range(len(values["upsample"])):
            _set(values, f"upsample.{index}.{'.'.join([*path[1:], last])}", value)
        return
    node: Any = values
    for part in path:
        node = _child(node, part, key)
    if isinstance(node, list):
        _child(node, last, key)
        node[int(last)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise UserError(f"Key {key!r} goes into {path[-1]!r}, which is a single value: shorten the key.")


def _is_index(path: list[str], last: str) -> bool:
    return (path[1] if len(path) > 1 else last).isdigit()


def _child(node: Any, part: str, key: str) -> Any:
    if isinstance(node, list) and part.isdigit() and int(part) < len(node):
        return node[int(part)]
    if isinstance(node, dict):
        if part in node and node[part] is None:
            node[part] = {}
        if part in node:
            return node[part]
        known = [*node, *(CascadeConfig.model_fields if "num_frames" in node else ())]
        if part in known:
            return node.setdefault(part, {})
        raise UserError(f"There is no key {key!r}: {part!r} is unknown.{suggest(part, known)}")
    raise UserError(f"There is no key {key!r}: {part!r} does not exist there.")


def _sentence(error: pydantic.ValidationError, origin: str) -> str:
    """Say the first problem in one sentence, with the nearest right key for an unknown one."""
    first = error.errors()[0]
    *path, last = first["loc"] or ("",)
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _known_keys(path)
        return (
            f"There is no key {key!r} in {origin}.{suggest(str(last), known)} It may hold {', '.join(sorted(known))}."
        )
    if first["type"] == "missing":
        return f"The key {key!r} is missing from {origin}: add it."
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    given = "" if isinstance(first["input"], dict) else f" (given {first['input']!r})"
    return f"{key + ': ' if key else ''}{message}{given}."


def _known_keys(path: Sequence[int | str]) -> list[str]:
    """Return the keys that the section at `path` may hold."""
    section: Any = CascadeConfig
    for part in path:
        if isinstance(part, int):
            continue
        section = _section_type(section.model_fields[part].annotation)
    return list(section.model_fields)


def _section_type(annotation: Any) -> Any:
    """Return the pydantic model inside `X`, `X | None` or `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _section_type(argument)
        if found is not None:
            return found
    return None
