"""Reference of the HTTP API, from the OpenAPI document of the service's application."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from serve.api import VideoService, build_api
from tools.reference.markdown import code, escape, page, table

_INTRODUCTION = """
The service implements the start of the OpenAI Videos API; the official client works with `base_url` set to
`http://HOST:PORT/v1`. A running service has this description as `/openapi.json`. An error has the body of
[`ErrorEnvelope`](#errorenvelope) and a status from 400. There is no authentication.
"""
_CONTENT = "application/json"


def render() -> str:
    """Return the page."""
    document = openapi()
    operations = [
        _operation(path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = [_schema(name, schema) for name, schema in sorted(_schemas(document).items())]
    return page("HTTP API", _INTRODUCTION, "## Routes", *operations, "## Messages", *schemas)


def openapi() -> dict[str, Any]:
    """Return the OpenAPI document. Routes are described without being called, so no service is needed."""
    return build_api(cast("VideoService", None)).openapi()


def _schemas(document: Mapping[str, Any]) -> dict[str, Any]:
    from serve.protocol import CreateVideo, ErrorEnvelope

    found = dict(document["components"]["schemas"])
    for model in (CreateVideo, ErrorEnvelope):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        found |= {name: one for name, one in schema.pop("$defs", {}).items() if name not in found}
        found[model.__name__] = schema
    # FastAPI's own answer to a bad query, which the service replaces by ErrorEnvelope.
    return {name: schema for name, schema in found.items() if "ValidationError" not in name}


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    blocks = [f"### {method.upper()} {path}", _sentences(operation.get("description", ""))]
    rows = [
        (
            code(one["name"]),
            one["in"],
            _type(one["schema"]),
            "required" if one.get("required") else _default(one["schema"]),
        )
        for one in operation.get("parameters", ())
    ]
    if rows:
        blocks.append(table(("parameter", "in", "type", "default"), rows))
    if "requestBody" in operation:
        kinds = ", ".join(code(kind) for kind in operation["requestBody"]["content"])
        blocks.append(f"Body: [`CreateVideo`](#createvideo), as {kinds}.")
    answer = operation["responses"].get("200", {})
    schema = answer.get("content", {}).get(_CONTENT, {}).get("schema", {})
    blocks.append(f"Answer: {_type(schema)}." if "$ref" in schema else "Answer: the file.")
    return "\n\n".join(blocks)


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = [
        (
            code(field),
            _type(one),
            "required" if field in required else _default(one),
            escape(", ".join(filter(None, [one.get("description", ""), *_limits(one)]))),
        )
        for field, one in schema.get("properties", {}).items()
    ]
    return "\n\n".join([f"### {name}", _sentences(schema.get("description", "")), table(_HEADER, rows)])


_HEADER = ("field", "type", "default", "meaning")


def _sentences(text: str) -> str:
    return escape(text).replace("\\|", "|")


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[`{name}`](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "const" in schema:
        return code(repr(schema["const"]))
    if "enum" in schema:
        return " or ".join(code(value) for value in schema["enum"])
    if schema.get("type") == "array":
        return f"array of {_type(schema['items'])}" if "items" in schema else "array"
    return str(schema.get("type", "any"))


def _default(schema: Mapping[str, Any]) -> str:
    return code("null" if schema["default"] is None else schema["default"]) if "default" in schema else ""


def _limits(schema: Mapping[str, Any]) -> Iterator[str]:
    words = {"minimum": ">=", "maximum": "<=", "exclusiveMaximum": "<", "maxLength": "length <="}
    for one in (schema, *schema.get("anyOf", ())):
        yield from (f"{sign} {one[word]}" for word, sign in words.items() if word in one)
