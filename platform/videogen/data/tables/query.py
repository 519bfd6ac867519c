"""SQL conditions over tables: parsed and checked before any work, then evaluated batch by batch in constant memory.

A condition is one expression over the columns of a row. DuckDB parses it; the syntax tree is then checked: no subquery,
no table, no function whose result depends on anything but its arguments. The database that evaluates conditions has no
access to files, network or settings either.
"""

# ruff: noqa: S608 - user input does become SQL here, which is why it is parsed and checked first

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from videogen import storage
from videogen.data.tables.files import read_footer
from videogen.errors import UserError

if TYPE_CHECKING:
    import duckdb

_ROWS_PER_BATCH = 65_536
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
"""Node classes of DuckDB's syntax tree that a condition may contain."""
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
"""Functions whose result can be gigabytes for a small argument; DuckDB's memory limit does not cover them."""
_RELATION = "rows"


# --- public ----------------------------------------------------------------------------------------------------------


def check_expression(expression: str, schema: pa.Schema, what: str = "Condition") -> None:
    """Check a condition against the columns that it will be evaluated on.

    A condition is one SQL expression in DuckDB's dialect over the columns of one row, e.g. "score >= 0.3 and not
    starts_with(title, 'ad')". Subqueries, other tables, files, settings, time and random numbers are not allowed.

    Args:
        expression: the condition.
        schema: the columns.
        what: names the condition in error messages, e.g. "--where".

    Raises:
        UserError: the condition is invalid, in one sentence.
    """
    with locked_connection() as connection:
        require_condition(connection, expression, schema, what)


def conjunction(*expressions: str) -> str:
    """Return the conjunction of conditions; each must have been checked by itself.

    Line breaks keep a comment at the end of one condition from reaching the next.
    """
    return " AND ".join(f"(\n{expression}\n)" for expression in expressions)


class Conditions:
    """Named conditions, checked once, then evaluated on batches; a context manager.

        with Conditions({"sharp": "sharpness < 0.5"}, schema) as conditions:
            flags = conditions(batch)["sharp"]

    Args:
        expressions: conditions by name.
        schema: columns of the batches.
        what: names a condition in error messages; "{name}" in it is replaced by the condition's name.

    Raises:
        UserError: as of `check_expression`.
    """

    def __init__(self, expressions: Mapping[str, str], schema: pa.Schema, what: str = "Condition") -> None:
        self._connection = locked_connection()
        self._expressions = dict(expressions)
        self._what = what
        try:
            read = [
                require_condition(self._connection, expression, schema, what.replace("{name}", name))
                for name, expression in self._expressions.items()
            ]
        except BaseException:
            self._connection.close()
            raise
        self.columns = list(dict.fromkeys(name for names in read for name in names))
        """Columns that the conditions read."""
        terms = (f"coalesce((\n{text}\n), false) AS c{number}" for number, text in enumerate(expressions.values()))
        self._query = f"SELECT {', '.join(terms)} FROM rows"

    def __call__(self, batch: pa.RecordBatch) -> dict[str, pa.BooleanArray]:
        """Evaluate the conditions; return a mask for each. A null result counts as false.

        Raises:
            UserError: the condition cannot be evaluated on a value, e.g. a text compared with a number.
        """
        import duckdb

        if not self._expressions:
            return {}
        if not batch.num_rows:
            return {name: pa.array([], pa.bool_()) for name in self._expressions}
        names = self.columns or batch.schema.names[:1]  # a condition such as "true" reads no column
        self._connection.register("rows", pa.Table.from_batches([batch.select(names)]))
        try:
            found = self._connection.sql(self._query).to_arrow_table().combine_chunks()
        except duckdb.Error as error:
            texts = " and ".join(repr(text) for text in self._expressions.values())
            what = self._what.replace("{name}", ", ".join(self._expressions))
            raise UserError(f"{what} {texts} cannot be evaluated on these rows: {reason(error)}.") from error
        finally:
            self._connection.unregister("rows")
        return {name: found.column(place).chunk(0) for place, name in enumerate(self._expressions)}

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def select(
    uris: Sequence[str],
    columns: Sequence[str] | None = None,
    where: str | None = None,
    what: str = "Condition",
) -> Iterator[pa.RecordBatch]:
    """Return rows of parquet files of one schema, in order, in batches.

    Args:
        uris: the files, local or on S3.
        columns: columns to read; None for all.
        where: condition that rows must fulfil (see `check_expression`); None for all rows.
        what: names the condition in error messages.

    Raises:
        UserError: by this call, before any row is read: an unknown column or an invalid condition.
    """
    if not uris:
        return iter(())
    schema = read_footer(uris[0]).schema
    columns = list(schema.names if columns is None else columns)
    for name in columns:
        if name not in schema.names:
            raise UserError(f"Column {name!r} does not exist: the columns are {', '.join(schema.names)}.")
    if where is None:
        return _batches(uris, columns)
    check_expression(where, schema, what)
    return _selected(uris, columns, where, schema, what)


def _selected(
    uris: Sequence[str], columns: list[str], where: str, schema: pa.Schema, what: str
) -> Iterator[pa.RecordBatch]:
    with Conditions({"where": where}, schema, what) as conditions:
        for batch in _batches(uris, list(dict.fromkeys([*columns, *conditions.columns]))):
            chosen = batch.select(columns).filter(conditions(batch)["where"])
            if chosen.num_rows:
                yield chosen


def _batches(uris: Iterable[str], columns: list[str]) -> Iterator[pa.RecordBatch]:
    for uri in uris:
        filesystem, path = storage.arrow_filesystem(uri)
        with filesystem.open_input_file(path) as file, pq.ParquetFile(file, page_checksum_verification=True) as parquet:
            for batch in parquet.iter_batches(_ROWS_PER_BATCH, columns=columns):
                yield batch.select(columns)


# --- parsing and checking --------------------------------------------------------------------------------------------


def locked_connection(memory_mb: int = 256) -> "duckdb.DuckDBPyConnection":
    """Return an in-memory database without external access, whose settings are locked."""
    import duckdb

    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory_mb}MB",
        "threads": 1,  # keeps the order of rows
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
    """Check that a text is a plain expression over the columns of `schema`; return the columns that it reads.

    Raises:
        UserError: with the position of a syntax error, or the name of what is not allowed.
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
            # DuckDB would evaluate some names as functions: current_timestamp, user.
            near = difflib.get_close_matches(_name_of(node), named, n=1, cutoff=0.5)
            cure = f"did you mean {named[near[0]]!r}?" if near else f"the columns are {', '.join(schema.names)}."
            raise UserError(
                f"{what} {expression!r} names the column {node['column_names'][0]!r}, which does not exist: {cure}"
            )
    return list(found)


def _name_of(column: dict[str, Any]) -> str:
    return str(column["column_names"][0]).casefold()


def require_condition(
    connection: "duckdb.DuckDBPyConnection", expression: str, schema: pa.Schema, what: str
) -> list[str]:
    """Check a condition by evaluating it on a row of nulls; return the columns that it reads.

    Raises:
        UserError: an unknown column (with the closest name), a type that does not match, or not a condition.
    """
    import duckdb

    columns = columns_of(connection, expression, schema, what)
    # Without any row, DuckDB does not even report a comparison of a text with a number.
    unknown = pa.table({name: pa.nulls(1, kind) for name, kind in zip(schema.names, schema.types, strict=True)})
    connection.register(_RELATION, unknown)
    try:
        # In WHERE, DuckDB itself rejects aggregates and window functions.
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
    """Return the syntax tree of an expression."""
    if len(expression) > _MAX_LENGTH:
        raise UserError(f"{what} has {len(expression)} characters, but at most {_MAX_LENGTH} are read: shorten it.")
    if not expression.strip():
        raise UserError(f"{what} is empty, but a condition such as 'width >= 512' is expected.")
    # The line break terminates a comment.
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
    """Yield all nodes of a syntax tree."""
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
    """Raise unless a function's result depends on its arguments alone and is not much larger than them.

    A condition therefore always selects the same rows.
    """
    if function.casefold() in _EXPANDING:
        raise UserError(f"{what} {expression!r} uses {function}(), which can fill the memory and is not allowed here.")
    query = "SELECT DISTINCT function_type, stability FROM duckdb_functions() WHERE lower(function_name) = lower(?)"
    found = connection.execute(query, [function]).fetchall()
    kinds = {kind for kind, _ in found if kind in ("scalar", "macro")}
    if found and not kinds:
        raise UserError(f"{what} {expression!r} uses {function}(), which is not a function of one row.")
    if any(stability in ("VOLATILE", "CONSISTENT_WITHIN_QUERY") for _, stability in found) and function.isidentifier():
        raise UserError(f"{what} {expression!r} uses {function}(), whose result depends on more than the row.")


def reason(error: Exception) -> str:
    """Return the first sentence of a DuckDB error, without its prefix and its excerpt of the query."""
    text = " ".join(str(error).split("LINE 1")[0].split())
    text = re.sub(r"^[A-Z][A-Za-z ]* Error: ", "", text)
    return re.split(r"[.!] (?=[A-Z])", text)[0].rstrip(".! ") or type(error).__name__
