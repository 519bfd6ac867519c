"""SQL conditions that people write, read without being run: one expression over known columns and nothing else.

DuckDB parses them; what the tree holds is then checked: no subquery, no table, no function whose result depends on
anything but its arguments. The database that evaluates them has no access to files, network or settings anyway.
"""

# ruff: noqa: S608 - what people write does become SQL here: that is why expressions.py reads it first

import difflib
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from videogen.errors import UserError

if TYPE_CHECKING:
    import duckdb

_MAX_LENGTH = 2000
_PREFIX = "SELECT "
_ALLOWED = {
    "BETWEEN",
    "CASE",
    "CAST",
    "COLLATE",
    "COLUMN_REF",
    "COMPARISON",
    "CONJUNCTION",
    "CONSTANT",
    "FUNCTION",
    "LAMBDA",
    "LAMBDA_REF",
    "OPERATOR",
    "TYPE",
}
"""Classes of nodes that a condition may consist of."""
_EXPANDING = {
    "array_resize",
    "bar",
    "format",
    "generate_series",
    "list_resize",
    "lpad",
    "printf",
    "range",
    "repeat",
    "rpad",
}
"""Functions that can make gigabytes of a number; DuckDB's memory limit does not count what they make."""
_RELATION = "rows"


def locked_connection(memory_mb: int = 256) -> "duckdb.DuckDBPyConnection":
    """Return a database in memory that can reach nothing outside, and whose settings cannot be changed."""
    import duckdb

    settings: dict[str, Any] = {
        "memory_limit": f"{memory_mb}MB",
        "threads": 1,  # and so rows keep their order
        "temp_directory": "",
        "python_enable_replacements": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    connection = duckdb.connect(":memory:", config=settings)
    connection.execute("SET enable_external_access = false").fetchall()
    connection.execute("SET lock_configuration = true").fetchall()
    return connection


def columns_of(connection: "duckdb.DuckDBPyConnection", expression: str, schema: pa.Schema, what: str) -> list[str]:
    """Return the columns of `schema` that an expression reads, after checking that it is nothing but an expression.

    Raises:
        UserError: in one sentence, with the place of a syntax error or the name of what is not allowed.
    """
    named = {str(name).casefold(): str(name) for name in schema.names}
    tree = _parse(connection, expression, what)
    lambdas = [node["lhs"] for node in _nodes(tree) if node["class"] == "LAMBDA"]
    parameters = {_name_of(node) for lhs in lambdas for node in _nodes(lhs) if node["class"] == "COLUMN_REF"}
    found: dict[str, None] = {}
    for node in _nodes(tree):
        kind = node["class"]
        if kind == "SUBQUERY":
            raise UserError(f"{what} {expression!r} holds a SELECT, but only columns of the row itself can be used.")
        if kind not in _ALLOWED:
            raise UserError(f"{what} {expression!r} holds a {kind.lower()}, but a plain condition is expected.")
        if kind == "FUNCTION":
            _require_pure(connection, node["function_name"], expression, what)
        if kind == "COLUMN_REF" and _name_of(node) in named:
            found[named[_name_of(node)]] = None
        elif kind == "COLUMN_REF" and _name_of(node) not in parameters:
            # DuckDB would take some for functions: current_timestamp, user.
            near = difflib.get_close_matches(_name_of(node), named, n=1, cutoff=0.5)
            cure = f"did you mean {named[near[0]]!r}?" if near else f"there are {', '.join(schema.names)}."
            raise UserError(
                f"{what} {expression!r} names the column {node['column_names'][0]!r}, which is not there: {cure}"
            )
    return list(found)


def _name_of(column: dict[str, Any]) -> str:
    return str(column["column_names"][0]).casefold()


def require_condition(
    connection: "duckdb.DuckDBPyConnection", expression: str, schema: pa.Schema, what: str
) -> list[str]:
    """Return the columns that a condition reads, after trying it on a row of which nothing is known.

    Raises:
        UserError: in one sentence: an unknown column with the nearest one, a type that does not fit, not a condition.
    """
    import duckdb

    columns = columns_of(connection, expression, schema, what)
    # With no row at all DuckDB leaves even a text that is compared with a number for later.
    unknown = pa.table({name: pa.nulls(1, kind) for name, kind in zip(schema.names, schema.types, strict=True)})
    connection.register(_RELATION, unknown)
    try:
        # In WHERE, DuckDB itself refuses aggregates and windows.
        connection.execute(f"SELECT 1 FROM {_RELATION} WHERE (\n{expression}\n)").fetchall()
        relation = connection.sql(f"SELECT (\n{expression}\n) AS condition FROM {_RELATION}")
        kind = str(relation.types[0])
    except duckdb.Error as error:
        raise UserError(f"{what} {expression!r} cannot be evaluated: {reason(error)}.") from error
    finally:
        connection.unregister(_RELATION)
    if kind != "BOOLEAN":
        raise UserError(f"{what} {expression!r} gives {kind}, but must be true or false: compare it with something.")
    return columns


def _parse(connection: "duckdb.DuckDBPyConnection", expression: str, what: str) -> dict[str, Any]:
    """Return the tree of an expression."""
    if len(expression) > _MAX_LENGTH:
        raise UserError(f"{what} has {len(expression)} characters, but at most {_MAX_LENGTH} are read: shorten it.")
    if not expression.strip():
        raise UserError(f"{what} is empty, but a condition such as 'width >= 512' is expected.")
    # The line break ends a comment.
    (text,) = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [f"{_PREFIX}{expression}\n"]).fetchall()[0]
    answer = json.loads(text)
    if answer["error"]:
        message = " ".join(answer["error_message"].split())
        if "position" in answer:
            place = max(1, int(answer["position"]) - len(_PREFIX) + 1)
            raise UserError(f"{what} {expression!r} is not a condition: {message}, at character {place}.")
        raise UserError(f"{what} {expression!r} is not a condition: it must be one expression, without any statement.")
    statements = answer["statements"]
    node = statements[0]["node"] if len(statements) == 1 else {}
    alone = (
        node.get("type") == "SELECT_NODE"
        and len(node["select_list"]) == 1
        and node["from_table"]["type"] == "EMPTY"
        and not any(node.get(clause) for clause in ("where_clause", "having", "qualify", "sample", "group_expressions"))
        and not node.get("modifiers")
        and not node["cte_map"]["map"]
        and not node["select_list"][0].get("alias")
    )
    if not alone:
        raise UserError(f"{what} {expression!r} must be one expression over columns, without FROM, ORDER BY or commas.")
    tree: dict[str, Any] = node["select_list"][0]
    return tree


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield every node of a tree that has a class."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
            if tree["class"] == "SUBQUERY":
                return
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _require_pure(connection: "duckdb.DuckDBPyConnection", function: str, expression: str, what: str) -> None:
    """Raise unless a function's result is of the size of its arguments and depends on them alone.

    So a condition means the same tomorrow.
    """
    if function.casefold() in _EXPANDING:
        raise UserError(f"{what} {expression!r} uses {function}(), which can fill the memory and is not allowed here.")
    query = "SELECT DISTINCT function_type, stability FROM duckdb_functions() WHERE lower(function_name) = lower(?)"
    found = connection.execute(query, [function]).fetchall()
    kinds = {kind for kind, _ in found if kind in ("scalar", "macro")}
    if found and not kinds:
        raise UserError(f"{what} {expression!r} uses {function}(), which is not a function of one row.")
    if any(stability in ("VOLATILE", "CONSISTENT_WITHIN_QUERY") for _, stability in found) and function.isidentifier():
        raise UserError(f"{what} {expression!r} uses {function}(), whose result is not decided by the row alone.")


def reason(error: Exception) -> str:
    """Return the first sentence of what DuckDB says, without its prefix and its picture of the query."""
    text = " ".join(str(error).split("LINE 1")[0].split())
    text = re.sub(r"^[A-Z][A-Za-z ]* Error: ", "", text)
    return re.split(r"[.!] (?=[A-Z])", text)[0].rstrip(".! ") or type(error).__name__
