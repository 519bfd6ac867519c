"""A database on local disk for the sets that do not fit in memory; it is gone when its process is.

DuckDB sorts and joins within a memory limit and spills the rest into the same folder.
"""

import contextlib
import itertools
import shutil
import tempfile
import threading
from collections.abc import Sequence
from os import getpid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from videogen.data.tables.processes import machine_id, start_mark

if TYPE_CHECKING:
    import duckdb

MEMORY_MB = 128
_PREFIX = "videogen-ledger"


class Scratch:
    """A DuckDB database in a temporary folder, usable from several threads, one statement at a time.

    Args:
        memory_mb: limit of what DuckDB holds; what is more goes to disk.
        threads: of DuckDB.
    """

    def __init__(self, memory_mb: int = MEMORY_MB, threads: int = 2) -> None:
        remove_abandoned()
        name = f"{_PREFIX}-{machine_id()}-{getpid()}-{start_mark(getpid())}-"
        self.folder = Path(tempfile.mkdtemp(prefix=name))
        self._lock = threading.RLock()
        self._numbers = itertools.count()
        self._connection = _connect(self.folder, memory_mb, threads)

    def new_name(self, name: str) -> str:
        """Return a name that nothing else has, for what is read while other statements run."""
        return f"{name}_{next(self._numbers)}"

    def run(self, statement: str, values: Sequence[Any] = ()) -> None:
        """Execute a statement that returns nothing."""
        with self._lock:
            self._connection.execute(statement, list(values)).fetchall()

    def fetch(self, query: str, values: Sequence[Any] = ()) -> pa.Table:
        """Return the rows of a query that is known to give few."""
        with self._lock:
            return self._connection.sql(query, params=list(values)).to_arrow_table()

    def number(self, query: str, values: Sequence[Any] = ()) -> int:
        """Return the one number that a query gives."""
        return int(self.fetch(query, values).column(0)[0].as_py() or 0)

    def insert(self, table: str, rows: pa.Table | pa.RecordBatch) -> None:
        """Append rows to a table, column by name."""
        with self._lock:
            self._connection.register("incoming", rows)
            try:
                self.run(f"INSERT INTO {table} BY NAME SELECT * FROM incoming")  # noqa: S608 - our own names
            finally:
                self._connection.unregister("incoming")

    def create_like(self, table: str, schema: pa.Schema) -> None:
        """Make an empty table with these columns, in place of an earlier one of this name."""
        with self._lock:
            self._connection.register("incoming", schema.empty_table())
            try:
                self.create(table, "SELECT * FROM incoming")
            finally:
                self._connection.unregister("incoming")

    def create(self, table: str, query: str, values: Sequence[Any] = ()) -> None:
        """Make a table of a query's rows, in place of an earlier one of this name."""
        self.run(f"CREATE OR REPLACE TABLE {table} AS {query}", values)

    def close(self) -> None:
        """Remove the database and all that was spilled."""
        with self._lock:
            self._connection.close()
            shutil.rmtree(self.folder, ignore_errors=True)


def _connect(folder: Path, memory_mb: int, threads: int) -> "duckdb.DuckDBPyConnection":
    import duckdb

    settings: dict[str, Any] = {
        "memory_limit": f"{memory_mb}MB",
        "threads": threads,
        "temp_directory": str(folder / "spill"),
        "preserve_insertion_order": False,  # every query here says its order
        "python_enable_replacements": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    connection = duckdb.connect(str(folder / "scratch.duckdb"), config=settings)
    # All input comes through Arrow.
    connection.execute("SET enable_external_access = false").fetchall()
    connection.execute("SET lock_configuration = true").fetchall()
    return connection


def remove_abandoned() -> None:
    """Remove the folders of processes of this machine that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}-{machine_id()}-*"):
        with contextlib.suppress(ValueError):
            pid, started, _ = folder.name.removeprefix(f"{_PREFIX}-{machine_id()}-").split("-", 2)
            if start_mark(int(pid)) != started:
                shutil.rmtree(folder, ignore_errors=True)
