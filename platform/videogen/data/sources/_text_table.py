"""Text columns from parquet, csv and jsonl files as a stream, with errors that name the row."""

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
_READ_BYTES = 1 << 20
_MAX_LINE_BYTES = 16 << 20
"""Longest line of a jsonl file; anything longer is not one object per line and would fill the memory."""
_OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}

Chunk = dict[str, list[str | None]]
"""Some rows: one text per row for each requested column that exists; "" and null are equivalent."""


class TextTable:
    """A table whose columns are read as text.

    Args:
        uri: file that ends in one of `TABLE_SUFFIXES`.
        what: names the table in error messages, e.g. "Manifest".

    Raises:
        UserError: missing, unreadable or of another format; also raised by `rows`.
    """

    def __init__(self, uri: str, what: str) -> None:
        self.uri = uri
        self.name = f"{what} {uri!r}"
        if not self.uri.lower().endswith(TABLE_SUFFIXES):
            raise UserError(f"{self.name}: this is not a table of a known format: give a {_or(TABLE_SUFFIXES)} file.")
        storage.require_readable(self.uri, what)
        self._suffix = self.uri[self.uri.rindex(".") :].lower()
        self.columns: list[str] = []
        """Column names; for jsonl, those seen so far."""
        if self._suffix == ".parquet":
            self.columns = self._parquet_schema().names
        elif self._suffix == ".csv":
            self.columns = self._csv_header()

    @property
    def columns_are_known(self) -> bool:
        """Whether `columns` is complete before the rows are read."""
        return self._suffix != ".jsonl"

    def rows(self, wanted: Sequence[str]) -> Iterator[Chunk]:
        """Yield the rows in order, with those of the `wanted` columns that exist."""
        if self._suffix == ".jsonl":
            yield from self._jsonl_rows(wanted)
            return
        names = [name for name in wanted if name in self.columns]
        twice = next((name for name in names if self.columns.count(name) > 1), None)
        if twice is not None:
            raise UserError(f"{self.name}: there are two columns {twice!r}: rename one of them.")
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
            except UserError:  # storage errors
                raise
            except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: a column name that is not UTF-8
                raise UserError(
                    f"{self.name}: this is not a parquet table ({_first_line(error)}): write it again."
                ) from error

    def _parquet_batches(self, names: Sequence[str]) -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = self._parquet_schema()
        for name in names:
            if not _can_be_text(schema.field(name).type):
                raise UserError(
                    f"{self.name}: the column {name!r} holds {one_line(str(schema.field(name).type))}, but text is "
                    f"needed (jobs/import_videos.py unpacks tables that contain videos)."
                )
        first_row = 0
        with self._open() as file:
            try:
                for batch in pq.ParquetFile(file).iter_batches(_ROWS_AT_ONCE, columns=list(names)):
                    columns = [self._as_text(batch[name], name, first_row) for name in names]
                    first_row += batch.num_rows
                    yield pa.record_batch(columns, names=list(names))
            except UserError:
                raise
            except (pa.ArrowException, OSError, ValueError) as error:
                raise UserError(
                    f"{self.name}: its rows from {first_row + 1} on cannot be read ({_first_line(error)}): write it "
                    f"again."
                ) from error

    def _as_text(self, column: "pa.Array", name: str, first_row: int) -> "pa.Array":
        """Return a column as valid UTF-8, which parquet declares but does not guarantee."""
        import pyarrow as pa

        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            column = column.cast(pa.string())
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            texts = column.cast(pa.large_binary()).to_pylist()
            bad = next((row for row, text in enumerate(texts, 1) if text is not None and not _is_utf8(text)), None)
            if bad is None:
                raise
            raise UserError(
                f"{self.name}: {name!r} is not UTF-8 text in row {first_row + bad}: correct it there."
            ) from error
        return column.cast(pa.string())

    # --- csv -----------------------------------------------------------------------------------------------------

    def _csv_header(self) -> list[str]:
        with self._open() as file:
            start = file.read(_MAX_HEADER_BYTES)
        # Only column names must be UTF-8: columns that are not read may contain anything.
        stream = io.StringIO(start.decode("utf-8-sig", errors="surrogateescape"), newline="")
        try:
            header = next(csv.reader(stream), [])
        except csv.Error as error:
            raise UserError(
                f"{self.name}: its first line is not csv ({_first_line(error)}): write it again."
            ) from error
        if any(well_formed(name) != name or "\0" in name for name in header):
            raise UserError(
                f"{self.name}: its first line is not UTF-8 text, but e.g. UTF-16 or compressed: save it as plain UTF-8."
            )
        if len(start) == _MAX_HEADER_BYTES and not stream.read(1):
            raise UserError(
                f"{self.name}: its first line, which names the columns, does not end within {_MAX_HEADER_BYTES} bytes: "
                f"close its quotes, or leave columns out."
            )
        if len(header) == 1:
            for delimiter, plural in _OTHER_DELIMITERS.items():
                if delimiter in header[0]:
                    raise UserError(f"{self.name}: its columns are separated by {plural}, but commas are expected.")
        return header

    def _csv_batches(self, names: Sequence[str]) -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa
        import pyarrow.csv as pacsv

        with self._open() as file:
            try:
                yield from pacsv.open_csv(
                    file,
                    # Only with one thread do errors name the row.
                    read_options=pacsv.ReadOptions(use_threads=False),
                    parse_options=pacsv.ParseOptions(newlines_in_values=True),
                    convert_options=pacsv.ConvertOptions(
                        include_columns=list(names), column_types=dict.fromkeys(names, pa.string())
                    ),
                )
            except UserError:
                raise
            except (pa.ArrowException, OSError, ValueError) as error:
                reason = _first_line(error).removeprefix("CSV parse error: ")
                if "straddl" in reason:
                    reason = "a row does not end within 1 MiB, as after a quote that is never closed"
                raise UserError(
                    f"{self.name}: this is not a csv table with a header, commas and UTF-8 text ({reason}): "
                    f"correct it there."
                ) from error

    # --- jsonl ---------------------------------------------------------------------------------------------------

    def _jsonl_rows(self, wanted: Sequence[str]) -> Iterator[Chunk]:
        # Arrow's reader reports error rows relative to a block, and infers column types from the first rows.
        seen: dict[str, None] = {}
        chunk: Chunk = {name: [] for name in wanted}
        for number, line in enumerate(self._lines(), 1):
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

    def _lines(self) -> Iterator[bytes]:
        """Yield the file's lines, with a limit on their length, which S3 file objects do not offer."""
        rest, number = b"", 1
        with self._open() as file:
            while block := file.read(_READ_BYTES):
                *lines, rest = (rest + block).split(b"\n")
                yield from lines
                number += len(lines)
                if len(rest) > _MAX_LINE_BYTES:
                    raise UserError(
                        f"{self.name}: line {number} is longer than {_MAX_LINE_BYTES} bytes: write one object a line."
                    )
        yield rest

    def _record(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            # pandas writes NaN for a missing text, which is not JSON.
            record = json.loads(text, object_pairs_hook=_unique, parse_constant=lambda _: None)
        except _TwiceError as error:
            raise UserError(
                f"{self.name}: line {number} names {error.args[0]!r} twice: leave one of them out."
            ) from error
        except RecursionError as error:
            raise UserError(f"{self.name}: line {number} is nested too deeply: leave such columns out.") from error
        except ValueError as error:
            raise UserError(
                f"{self.name}: line {number} is not JSON ({_first_line(error)}): correct it there."
            ) from error
        if not isinstance(record, dict):
            raise UserError(
                f'{self.name}: line {number} is not a JSON object: write lines such as {{"video": "a.mp4"}}.'
            )
        return record

    def _text(self, value: object, name: str, number: int) -> str | None:
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        raise UserError(f"{self.name}: {name!r} is not text in line {number}, but {type(value).__name__}: write text.")

    def _open(self) -> IO[bytes]:
        filesystem, path = storage.fsspec_filesystem(self.uri)
        file: IO[bytes] = filesystem.open(path, "rb")
        return file


class _TwiceError(ValueError):
    """A JSON object with a repeated key, of which JSON parsers keep different values."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(next(one_line(name) for name in names if names.count(name) > 1))
    return record


def _can_be_text(kind: "pa.DataType") -> bool:
    """Return whether the values of a column have a text form, as all values of csv files do."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    bytes_or_bool = (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_binary_view,
        pa.types.is_fixed_size_binary,
        pa.types.is_boolean,
    )
    return not (pa.types.is_nested(kind) or any(test(kind) for test in bytes_or_bool))


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _first_line(error: BaseException) -> str:
    return one_line((str(error).splitlines() or [type(error).__name__])[0]).rstrip(". ")


def _or(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


_NAMES_AT_MOST = 20
_LENGTH_AT_MOST = 200


def well_formed(text: str) -> str:
    """Replace unpaired surrogates, which JSON and tar files may contain but UTF-8, hence Arrow, cannot."""
    return text.encode(errors="replace").decode()


def one_line(text: str, length: int = _LENGTH_AT_MOST) -> str:
    """Return text for quotation in a message: one line, without control characters, truncated."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
    return shown if len(shown) <= length else f"{shown[:length]}..."


def listed(names: Sequence[str]) -> str:
    """Return names as a comma-separated list for a message, truncated after the first few."""
    shown = ", ".join(one_line(name, 60) for name in names[:_NAMES_AT_MOST])
    left = len(names) - _NAMES_AT_MOST
    return f"{shown} and {left} more" if left > 0 else shown
