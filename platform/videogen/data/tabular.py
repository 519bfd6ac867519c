"""Columns of text out of parquet, csv and jsonl files, in a stream; what is wrong with a file is said by row."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

from videogen import storage
from videogen.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

TABLE_SUFFIXES = (".parquet", ".csv", ".jsonl")

_ROWS_AT_ONCE = 65536
_MAX_HEADER_BYTES = 1 << 16
_OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}

Chunk = dict[str, list[str | None]]
"""Some rows: for each column that was asked for and that exists, one text a row; "" and null are the same."""


class TextTable:
    """A table of which some columns are read as text.

    Args:
        uri: file that ends in one of `TABLE_SUFFIXES`.
        what: names the table for the reader of an error, e.g. "Manifest".

    Raises:
        UserError: missing, unreadable or of another format; raised by `rows` too.
    """

    def __init__(self, uri: str, what: str) -> None:
        self.uri = storage.absolute(uri)
        self.name = f"{what} {uri!r}"
        if not self.uri.lower().endswith(TABLE_SUFFIXES):
            raise UserError(f"{self.name}: this is no table of a known format: give a {_or(TABLE_SUFFIXES)} file.")
        storage.require_readable(self.uri, what)
        self._suffix = self.uri[self.uri.rindex(".") :].lower()
        self.columns: list[str] = []
        """Their names; of jsonl, those seen so far."""
        if self._suffix == ".parquet":
            self.columns = self._parquet_schema().names
        elif self._suffix == ".csv":
            self.columns = self._csv_header()

    @property
    def columns_are_known(self) -> bool:
        """Whether `columns` is complete before the rows are read."""
        return self._suffix != ".jsonl"

    def rows(self, wanted: Sequence[str]) -> Iterator[Chunk]:
        """Yield the rows in their order; of the columns `wanted`, those that exist."""
        if self._suffix == ".jsonl":
            yield from self._jsonl_rows(wanted)
            return
        names = [name for name in wanted if name in self.columns]
        batches = self._parquet_batches(names) if self._suffix == ".parquet" else self._csv_batches(names)
        for batch in batches:
            yield {name: batch[name].to_pylist() for name in names}

    # --- parquet -------------------------------------------------------------------------------------------------

    def _parquet_schema(self) -> "pa.Schema":
        import pyarrow as pa
        import pyarrow.parquet as pq

        with self._open() as file:
            try:
                return pq.read_schema(file)
            except (pa.ArrowException, OSError) as error:
                raise UserError(f"{self.name}: this is not a parquet table ({_first_line(error)}).") from error

    def _parquet_batches(self, names: Sequence[str]) -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = self._parquet_schema()
        for name in names:
            kind = schema.field(name).type
            if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                raise UserError(
                    f"{self.name}: the column {name!r} holds {kind}, but text is needed (a table that holds videos "
                    f"themselves is unpacked by jobs/import_videos.py)."
                )
        with self._open() as file:
            try:
                for batch in pq.ParquetFile(file).iter_batches(_ROWS_AT_ONCE, columns=list(names)):
                    columns = [batch[name].cast(pa.string()) for name in names]
                    yield pa.record_batch(columns, names=list(names))
            except (pa.ArrowException, OSError) as error:
                raise UserError(f"{self.name}: its rows cannot be read ({_first_line(error)}).") from error

    # --- csv -----------------------------------------------------------------------------------------------------

    def _csv_header(self) -> list[str]:
        with self._open() as file:
            start = file.read(_MAX_HEADER_BYTES).decode("utf-8-sig", errors="replace")
        header = next(csv.reader(io.StringIO(start)), [])
        if len(header) == 1:
            for delimiter, called in _OTHER_DELIMITERS.items():
                if delimiter in header[0]:
                    raise UserError(f"{self.name}: its columns are separated by {called}, but commas are expected.")
        if len(set(header)) < len(header):
            twice = next(name for name in header if header.count(name) > 1)
            raise UserError(f"{self.name}: there are two columns {twice!r}: rename one of them.")
        return header

    def _csv_batches(self, names: Sequence[str]) -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa
        import pyarrow.csv as pacsv

        with self._open() as file:
            try:
                yield from pacsv.open_csv(
                    file,
                    # With one thread an error says in which row it is.
                    read_options=pacsv.ReadOptions(use_threads=False),
                    parse_options=pacsv.ParseOptions(newlines_in_values=True),
                    convert_options=pacsv.ConvertOptions(
                        include_columns=list(names), column_types=dict.fromkeys(names, pa.string())
                    ),
                )
            except (pa.ArrowException, OSError) as error:
                reason = _first_line(error).removeprefix("CSV parse error: ")
                raise UserError(
                    f"{self.name}: this is not a csv table with a header, commas and UTF-8 text ({reason})."
                ) from error

    # --- jsonl ---------------------------------------------------------------------------------------------------

    def _jsonl_rows(self, wanted: Sequence[str]) -> Iterator[Chunk]:
        # Arrow's reader names the row of an error within a block only, and fixes a column's type by the first rows.
        seen: dict[str, None] = {}
        chunk: Chunk = {name: [] for name in wanted}
        with self._open() as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                record = self._record(line, number)
                seen |= dict.fromkeys(record)
                for name in wanted:
                    chunk[name].append(self._text(record.get(name), name, number))
                if len(chunk[wanted[0]]) == _ROWS_AT_ONCE:
                    self.columns = list(seen)
                    yield chunk
                    chunk = {name: [] for name in wanted}
        self.columns = list(seen)
        if chunk[wanted[0]]:
            yield chunk

    def _record(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except ValueError as error:
            raise UserError(f"{self.name}: line {number} is not JSON ({_first_line(error)}).") from error
        if not isinstance(record, dict):
            raise UserError(f'{self.name}: line {number} is no JSON object: write lines such as {{"video": "a.mp4"}}.')
        return record

    def _text(self, value: object, name: str, number: int) -> str | None:
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, int | float):
            return str(value)
        raise UserError(f"{self.name}: {name!r} is no text in line {number}, but {type(value).__name__}.")

    def _open(self) -> IO[bytes]:
        filesystem, path = storage.fsspec_filesystem(self.uri)
        return filesystem.open(path, "rb")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")


def _or(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"
