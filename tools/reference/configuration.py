"""Reference of the configuration: every key of a cascade and of the service, from the pydantic models."""

import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from serve.config import ServeConfig
from tools.reference.markdown import code, escape, page, table
from videogen.config import preset_names
from videogen.stages import CascadeConfig, load_preset

_PRESETS = ("tiny", "small", "paper")

_CASCADE = """
## Cascade

Keys of `--preset FILE` (YAML) and of `--set KEY=VALUE`. A preset may leave out every key that has a default. The last
columns are the values of the built-in presets: several with `/` where several upsample stages differ, `-` where a
preset does not have the section.
"""
_SERVICE = """
## Service

Keys of `python -m serve --set KEY=VALUE`. A stage's name sets that stage alone (`base.max_replicas=4`), `default_stage`
all others.
"""


def render() -> str:
    """Return the page."""
    assert set(preset_names()) == set(_PRESETS)
    presets = [load_preset(name).model_dump(mode="json") for name in _PRESETS]
    blocks = [_CASCADE]
    for title, prefix, keys in _sections(CascadeConfig, "", "Cascade as a whole"):
        header = ("key and meaning", "type", "default", *(code(name) for name in _PRESETS))
        rows = [
            (*_cells(prefix, name, field), *(_value(preset, f"{prefix}{name}") for preset in presets))
            for name, field in keys
        ]
        blocks += [f"### {title}", table(header, rows)]
    blocks.append(_SERVICE)
    for title, prefix, keys in _sections(ServeConfig, "", "Service as a whole"):
        rows = [_cells(prefix, name, field) for name, field in keys]
        blocks += [f"### {title}", table(("key and meaning", "type", "default"), rows)]
    return page("Configuration", *blocks)


def _sections(
    model: type[BaseModel], prefix: str, title: str
) -> Iterator[tuple[str, str, list[tuple[str, FieldInfo]]]]:
    """Yield title, prefix and keys of a section, then those of the sections within."""
    inner = {name: section for name, field in model.model_fields.items() if (section := _section_of(field.annotation))}
    yield title, prefix, [(name, field) for name, field in model.model_fields.items() if name not in inner]
    for name, section in inner.items():
        key = f"{prefix}{name}{_index(model.model_fields[name].annotation)}"
        yield from _sections(section, f"{key}.", f"`{key}`\n\n{_summary(section)}")


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the section type inside a field: plain, optional, in a tuple or in a mapping."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _index(annotation: Any) -> str:
    origin = get_origin(annotation)
    return "[i]" if origin is tuple else "[stage]" if origin is dict else ""


def _summary(section: type[BaseModel]) -> str:
    return (section.__doc__ or "").strip().splitlines()[0]


def _cells(prefix: str, name: str, field: FieldInfo) -> tuple[str, ...]:
    default = "required" if field.is_required() else _plain(_default(field))
    kind = ", ".join(filter(None, [type_name(field.annotation), escape(value_range(field))]))
    return f"{code(f'{prefix}{name}')}<br>{escape(field.description or '')}", kind, default


def _default(field: FieldInfo) -> Any:
    value = field.get_default(call_default_factory=True, validated_data={})
    return None if value is PydanticUndefined else value


def type_name(annotation: Any) -> str:
    """Return the name of a type in YAML terms."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if one is type(None) else type_name(one) for one in arguments)
    if origin is Literal:
        return " or ".join(str(one) for one in arguments)
    if origin is tuple:
        kinds = [one for one in arguments if one is not Ellipsis]
        count = "" if Ellipsis in arguments else f"{len(kinds)} "
        return f"list of {count}{type_name(kinds[0])}"
    return {bool: "true or false", int: "integer", float: "number", str: "text"}.get(annotation, str(annotation))


def value_range(field: FieldInfo) -> str:
    """Return the limits of a field, for example ">= 0, < 1", without line breaks within a limit."""
    signs: Mapping[type, tuple[str, str]] = {
        Ge: (">=", "ge"),
        Gt: (">", "gt"),
        Le: ("<=", "le"),
        Lt: ("<", "lt"),
        MinLen: ("length >=", "min_length"),
        MaxLen: ("length <=", "max_length"),
    }
    found = []
    for limit in field.metadata:
        if type(limit) in signs:
            sign, attribute = signs[type(limit)]
            found.append(f"{sign}&nbsp;{getattr(limit, attribute)}")
    return ", ".join(found)


def _value(preset: Mapping[str, Any], key: str) -> str:
    """Return a preset's value; of several upsample stages all values."""
    values: Sequence[Any] = [preset]
    for word in key.split("."):
        name, is_list = word.removesuffix("[i]"), word.endswith("[i]")
        values = [value.get(name, _LEFT_OUT) for value in values if isinstance(value, dict)]
        if is_list:
            values = [one for several in values if isinstance(several, list) for one in several]
    texts = [_plain(value) for value in values]
    if any(value is _LEFT_OUT for value in values):
        # Some keys are left out where they hold their default.
        return "default"
    return " / ".join(dict.fromkeys(texts)) if texts else "-"


_LEFT_OUT = object()


def _plain(value: Any) -> str:
    """Return a value in YAML syntax."""
    if value is None:
        return code("null")
    if isinstance(value, bool):
        return code(str(value).lower())
    if isinstance(value, tuple | list):
        shown = ", ".join(str(one).lower() if isinstance(one, bool) else str(one) for one in value)
        return code(f"[{shown}]") if len(shown) < 60 else f"{len(value)} values"
    return code(f"{value:g}") if isinstance(value, float) else code(value) if value != "" else "empty"


def undocumented() -> list[str]:
    """Return the keys that have no description."""
    found = []
    for model in (CascadeConfig, ServeConfig):
        for _, prefix, keys in _sections(model, "", ""):
            found += [f"{prefix}{name}" for name, field in keys if not field.description]
    return found
