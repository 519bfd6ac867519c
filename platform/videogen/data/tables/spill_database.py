"""Spill database: DuckDB tables on local disk for sets that do not fit in memory.

DuckDB sorts and joins within a memory limit and spills the rest into a temporary folder. The folder is removed when the
database is closed, or by the next run on the same machine if the process was killed.
"""

import contextlib
import itertools
import shutil
import tempfile
import threading
from collections.abc import Sequence
from os import getpid
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from videogen.data.tables.lease import machine_id, process_start

if TYPE_CHECKING:
    import duckdb

MEMORY_MB = 128
_PREFIX = "videogen-ledger"


class SpillDatabase:
    """A DuckDB database in a temporary folder; several threads may use it, one statement runs at a time.

    Args:
        memory_mb: memory limit of DuckDB; data beyond it goes to disk.
        threads: number of DuckDB threads.
    """

    def __init__(self, memory_mb: int = MEMORY_MB, threads: int = 2) -> None:
        remove_abandoned()
        name = f"{_PREFIX}-{machine_id()}-{getpid()}-{process_start(getpid())}-"
        self.folder = Path(tempfile.mkdtemp(prefix=name))
        self._lock = threading.RLock()
        self._numbers = itertools.count()
        self._connection = _connect(self.folder, memory_mb, threads)

    def new_name(self, name: str) -> str:
        """Return a unique name, for a table that is read while other statements run."""
        return f"{name}_{next(self._numbers)}"

    def run(self, statement: str, values: Sequence[object] = ()) -> None:
        """Execute a statement that returns nothing."""
        with self._lock:
            self._connection.execute(statement, list(values)).fetchall()

    def fetch(self, query: str, values: Sequence[object] = ()) -> pa.Table:
        """Return the result of a query, which must fit in memory."""
        with self._lock:
            return self._connection.sql(query, params=list(values)).to_arrow_table()

    def number(self, query: str, values: Sequence[object] = ()) -> int:
        """Return the single number that a query yields."""
        return int(self.fetch(query, values).column(0)[0].as_py() or 0)

    def texts(self, query: str) -> list[str]:
        """Return the first column of a query's result."""
        found: list[str] = self.fetch(query).column(0).to_pylist()
        return found

    def insert(self, table: str, rows: pa.Table | pa.RecordBatch) -> None:
        """Append rows to a table, matching columns by name."""
        with self._lock:
            self._connection.register("incoming", rows)
            try:
                self.run(f"INSERT INTO {table} BY NAME SELECT * FROM incoming")  # noqa: S608 - our own names
            finally:
                self._connection.unregister("incoming")

    def create_empty(self, table: str, schema: pa.Schema) -> None:
        """Create an empty table with these columns, replacing any table of this name."""
        with self._lock:
            self._connection.register("incoming", schema.empty_table())
            try:
                self.create(table, "SELECT * FROM incoming")
            finally:
                self._connection.unregister("incoming")

    def create(self, table: str, query: str, values: Sequence[object] = ()) -> None:
        """Create a table from a query, replacing any table of this name."""
        self.run(f"CREATE OR REPLACE TABLE {table} AS {query}", values)

    def close(self) -> None:
        """Remove the database and everything that was spilled."""
        with self._lock:
            self._connection.close()
            shutil.rmtree(self.folder, ignore_errors=True)


def _connect(folder: Path, memory_mb: int, threads: int) -> "duckdb.DuckDBPyConnection":
    import duckdb

    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory_mb}MB",
        "threads": threads,
        "temp_directory": str(folder / "spill"),
        "preserve_insertion_order": False,  # every query states its order
        "python_enable_replacements": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    connection = duckdb.connect(str(folder / "spill.duckdb"), config=settings)
    # All input comes through Arrow.
    connection.execute("SET enable_external_access = false").fetchall()
    connection.execute("SET lock_configuration = true").fetchall()
    return connection


def remove_abandoned() -> None:
    """Remove the folders of processes of this machine that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}-{machine_id()}-*"):
        with contextlib.suppress(ValueError):
            pid, started, _ = folder.name.removeprefix(f"{_PREFIX}-{machine_id()}-").split("-", 2)
            if process_start(int(pid)) != started:
                shutil.rmtree(folder, ignore_errors=True)
