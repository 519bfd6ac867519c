"""Configuration from YAML and `a.b=c` overrides, with errors that name the nearest valid key."""

import os
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeVar

import pydantic
import yaml

from videogen.cli import suggest
from videogen.errors import UserError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

ConfigT = TypeVar("ConfigT", bound=pydantic.BaseModel)

RENAMED_KEYS = {"timestep_spread": "logit_std"}
"""Former name of a key -> its present name. The former name is refused with a sentence that gives the present one."""


class _Loader(yaml.SafeLoader):
    """YAML loader that reads 16:9 as a text, as YAML 1.2 does; YAML 1.1 reads it as a number to base 60."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as in the base class
        first: [("tag:yaml.org,2002:str", re.compile(r"[-+]?[\d.]+(:[\d.]+)+$")), *resolvers]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _read_yaml(text: str) -> Any:
    return yaml.load(text, _Loader)  # noqa: S506 - it is a safe loader


def preset_names() -> list[str]:
    """Return the presets that ship with the package."""
    folder = resources.files("videogen.config") / "presets"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def read_preset(name: str) -> dict[str, Any]:
    """Return the values of a preset by name, or of a YAML file.

    Raises:
        UserError: unknown preset, or a file that cannot be read.
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
        raise UserError(f"Preset file {name!r} is not YAML ({' '.join(str(error).split())}): correct it.") from error
    if not isinstance(values, dict):
        raise UserError(f"Preset file {name!r} must hold a mapping of sections such as `base:`.")
    return values


def _choices() -> str:
    *first, last = preset_names()
    return f"{', '.join(first)} or {last}" if first else last


def build_config(
    kind: type[ConfigT],
    values: dict[str, Any],
    overrides: Sequence[str],
    origin: str,
    renamed_remedy: str = "rename it",
) -> ConfigT:
    """Return the configuration of `kind` with `values` and overrides.

    Args:
        kind: model of the whole configuration.
        values: nested values; changed in place by the overrides.
        overrides: `a.b=c`; in a list of sections, `a.0.b=c` sets one of them and `a.b=c` all of them.
        origin: name of the source of the values, for error messages.
        renamed_remedy: what to do about a key that has been renamed.

    Raises:
        UserError: unknown key, or a value that does not fit.
    """
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise UserError(f"Override {override!r} must look like key=value, e.g. base.training.steps=500.")
        try:
            value = _read_yaml(text)
        except (yaml.YAMLError, RecursionError):
            value = text
        _set(values, key.strip(), value, kind)
    try:
        return kind.model_validate(values)
    except pydantic.ValidationError as error:
        raise UserError(_describe_first_error(error, origin, kind, renamed_remedy)) from error


def _set(values: dict[str, Any], key: str, value: Any, kind: type[pydantic.BaseModel]) -> None:
    *path, last = key.split(".")
    sections = values.get(path[0]) if path else None
    is_list = isinstance(sections, list) and all(isinstance(section, dict) for section in sections)
    if is_list and not (path[1] if len(path) > 1 else last).isdigit():
        for index in range(len(values[path[0]])):
            _set(values, f"{path[0]}.{index}.{'.'.join([*path[1:], last])}", value, kind)
        return
    node: Any = values
    for part in path:
        node = _child(node, part, key, kind.model_fields if node is values else ())
    if isinstance(node, list):
        _child(node, last, key)
        node[int(last)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise UserError(f"Key {key!r} goes into {path[-1]!r}, which is a single value: shorten the key.")


def _child(node: Any, part: str, key: str, fields: Iterable[str] = ()) -> Any:
    """Return the value of `part` in a node; an empty one is added if it is among `fields`."""
    if isinstance(node, list) and part.isdigit() and int(part) < len(node):
        return node[int(part)]
    if isinstance(node, dict):
        if part in node and node[part] is None:
            node[part] = {}
        if part in node:
            return node[part]
        known = [*node, *fields]
        if part in known:
            return node.setdefault(part, {})
        raise UserError(f"There is no key {key!r}: {part!r} is unknown.{suggest(part, known)}")
    raise UserError(f"There is no key {key!r}: {part!r} does not exist there.")


def _describe_first_error(
    error: pydantic.ValidationError, origin: str, kind: type[pydantic.BaseModel], renamed_remedy: str
) -> str:
    """Return the first problem in one sentence, with the nearest valid key for an unknown one."""
    # A renamed key explains more than any other problem.
    problems = sorted(error.errors(), key=lambda one: not _renamed(one))
    first = problems[0]
    *path, last = first["loc"] or ("",)
    key = ".".join(str(part) for part in first["loc"])
    if renamed := _renamed(first):
        return f"The key {key!r} in {origin} is now named {renamed!r}: {renamed_remedy}."
    if first["type"] == "extra_forbidden":
        known = _known_keys(path, kind)
        return (
            f"There is no key {key!r} in {origin}.{suggest(str(last), known)} It may hold {', '.join(sorted(known))}."
        )
    if first["type"] == "missing":
        return f"The key {key!r} is missing from {origin}: add it."
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    given = "" if isinstance(first["input"], dict) else f" (given {first['input']!r})"
    return f"{key + ': ' if key else ''}{message}{given}."


def _renamed(problem: "ErrorDetails") -> str | None:
    """Return the present name of the key that an error is about, if it was renamed."""
    is_unknown = problem["type"] == "extra_forbidden" and problem["loc"]
    return RENAMED_KEYS.get(str(problem["loc"][-1])) if is_unknown else None


def _known_keys(path: Sequence[int | str], kind: type[pydantic.BaseModel]) -> list[str]:
    """Return the keys that the section at `path` may hold."""
    section: type[pydantic.BaseModel] = kind
    for part in path:
        if isinstance(part, int):
            continue
        section = _section_type(section.model_fields[part].annotation) or section
    return list(section.model_fields)


def _section_type(annotation: object) -> type[pydantic.BaseModel] | None:
    """Return the pydantic model inside `X`, `X | None` or `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _section_type(argument)
        if found is not None:
            return found
    return None
