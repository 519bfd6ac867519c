"""SQL conditions on tables: checked before any work, evaluated batch by batch, in order, in flat memory."""

# ruff: noqa: S608 - what people write does become SQL here: that is why expressions.py reads it first

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from videogen import storage
from videogen.data.tables.expressions import locked_connection, reason, require_condition
from videogen.data.tables.files import read_footer
from videogen.errors import UserError

_ROWS_PER_BATCH = 65_536


def check_expression(expression: str, schema: pa.Schema, what: str = "Condition") -> None:
    """Try a condition on a row of which nothing is known.

    A condition is one SQL expression in DuckDB's dialect over the columns of one row, e.g. "motion >= 0.3 and not
    starts_with(caption, 'ad')". Subqueries, other tables, files, settings, the clock and chance are out of reach.

    Args:
        expression: the condition.
        schema: the columns that there will be.
        what: names it for the reader of an error, e.g. "--where".

    Raises:
        UserError: in one sentence, whatever is wrong with it, before any work.
    """
    with locked_connection() as connection:
        require_condition(connection, expression, schema, what)


def both(*expressions: str) -> str:
    """Return the condition that all of them hold; each must have been checked by itself.

    Lines of their own keep a comment at the end of one from the next.
    """
    return " AND ".join(f"(\n{expression}\n)" for expression in expressions)


class Conditions:
    """Named conditions, checked once, then evaluated on batches; a context manager.

        with Conditions({"sharp": "sharpness < 0.5"}, schema) as conditions:
            flags = conditions(batch)["sharp"]

    Args:
        expressions: conditions by name.
        schema: columns of the batches to come.
        what: names a condition for the reader of an error; "{name}" in it stands for the condition's name.

    Raises:
        UserError: as `check_expression`.
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
        """The columns that the conditions read."""
        terms = (f"coalesce((\n{text}\n), false) AS c{number}" for number, text in enumerate(expressions.values()))
        self._query = f"SELECT {', '.join(terms)} FROM rows"

    def __call__(self, batch: pa.RecordBatch) -> dict[str, pa.BooleanArray]:
        """Return for each condition which rows fulfil it; an unknown (null) result counts as no.

        Raises:
            UserError: a value that the condition cannot be evaluated on, e.g. a text compared with a number.
        """
        import duckdb

        if not self._expressions:
            return {}
        if not batch.num_rows:
            return {name: pa.array([], pa.bool_()) for name in self._expressions}
        names = self.columns or batch.schema.names[:1]  # a condition such as "true" reads nothing
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
    """Return rows of parquet files of one schema, in order, a batch at a time; types are those of the files.

    Args:
        uris: the files, local or on S3.
        columns: which; None for all.
        where: condition that rows must fulfil (see `check_expression`); None for all.
        what: names the condition for the reader of an error.

    Raises:
        UserError: by this call, before anything is read: a column that is not there, or what is wrong with `where`.
    """
    if not uris:
        return iter(())
    schema = read_footer(uris[0]).schema
    columns = list(schema.names if columns is None else columns)
    for name in columns:
        if name not in schema.names:
            raise UserError(f"Column {name!r} is not there: there are {', '.join(schema.names)}.")
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
