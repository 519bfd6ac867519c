"""Run log: progress and timing of a run, as one file per run in its table: `runs/<started>-<id>.json`.

The file is replaced atomically every few seconds and at the end, so a killed run leaves a log too. Only people and the
table's report read it; it contains durations, but no host names.
"""

import json
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from videogen import storage
from videogen.data.tables import FAILED, FILTERED, OK

logger = logging.getLogger(__name__)

RUNS = "runs"
"""Folder of the table."""
RUNNING, DONE, STOPPED = "running", "done", "stopped"
"""Status of a run; one that says "running" while nobody holds the table's lease was killed."""

_WRITE_EVERY_S = 10.0
_MAX_SAMPLES = 300
_FIRST_INTERVAL_S = 0.25


@dataclass(frozen=True)
class Sample:
    """Progress of a run at one time."""

    seconds: float
    """Seconds since the run started."""
    done: int
    """Finished items: ok + filtered + failed."""
    ok: int
    filtered: int
    failed: int


@dataclass(frozen=True)
class RunTrace:
    """Log of one run."""

    name: str
    started_at: str
    """UTC, ISO 8601."""
    step: str
    """Name of the step, e.g. "encode"."""
    unit: str
    """Plural name of an item, e.g. "clips"."""
    total: int
    """Number of items to process."""
    settings: Mapping[str, Any]
    status: str = RUNNING
    """One of "running", "done", "stopped"."""
    error: str = ""
    """Error that stopped it, in one line."""
    operator_s: Mapping[str, float] = field(default_factory=dict)
    """Busy seconds by operator, summed over all workers."""
    samples: tuple[Sample, ...] = ()
    """At most about 300, in chronological order, from the start to the latest."""

    @property
    def seconds(self) -> float:
        """Seconds from the start to the latest sample."""
        return self.samples[-1].seconds if self.samples else 0.0

    @property
    def done(self) -> int:
        """Number of finished items."""
        return self.samples[-1].done if self.samples else 0


class RunLog:
    """Writer of a run's log, a context manager. Failures to write are logged, never raised.

    Args:
        table_uri: folder of the table.
        step: name of the step.
        unit: plural name of an item.
        total: number of items to process.
        settings: further information about the run, JSON values.
        write_every_s: seconds between writes.
        clock: monotonic clock in seconds.
    """

    def __init__(
        self,
        table_uri: str,
        step: str,
        unit: str,
        total: int,
        settings: Mapping[str, Any] | None = None,
        write_every_s: float = _WRITE_EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        now = datetime.now(UTC)
        self.name = f"{now:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"
        self._uri = storage.join(storage.absolute(table_uri), RUNS, f"{self.name}.json")
        self._about: dict[str, Any] = {
            "started_at": now.isoformat(timespec="seconds"),
            "step": step,
            "unit": unit,
            "total": total,
            "settings": dict(settings or {}),
        }
        self._write_every_s = write_every_s
        self._clock = clock
        self._started = self._written = clock()
        self._interval_s = _FIRST_INTERVAL_S
        self._samples = [Sample(0.0, 0, 0, 0, 0)]
        self._latest = self._samples[0]
        self._operator_s: dict[str, float] = {}

    def sample(self, counts: Mapping[str, int], operator_s: Mapping[str, float]) -> None:
        """Record the progress of the run.

        Args:
            counts: items by status: ok, filtered, failed.
            operator_s: busy seconds by operator so far.
        """
        now = self._clock()
        numbers = [counts.get(status, 0) for status in (OK, FILTERED, FAILED)]
        self._latest = Sample(round(now - self._started, 3), sum(numbers), *numbers)
        self._operator_s = {name: round(seconds, 3) for name, seconds in operator_s.items()}
        if self._latest.seconds >= self._samples[-1].seconds + self._interval_s:
            self._samples.append(self._latest)
            self._thin()
        if now - self._written >= self._write_every_s:
            self._write(RUNNING)

    def __enter__(self) -> Self:
        self._write(RUNNING)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._write(DONE)
        else:
            self._write(STOPPED, " ".join(str(error).split()) or type(error).__name__)

    def _thin(self) -> None:
        """If there are too many samples, drop every other one and double the interval."""
        if len(self._samples) > _MAX_SAMPLES:
            self._samples = self._samples[::2]
            self._interval_s *= 2

    def _write(self, status: str, error: str = "") -> None:
        self._written = self._clock()
        samples = self._samples if self._latest == self._samples[-1] else [*self._samples, self._latest]
        content = {
            **self._about,
            "status": status,
            "error": error,
            "operator_s": self._operator_s,
            "samples": [list(asdict(sample).values()) for sample in samples],
        }
        try:
            storage.write_text(self._uri, json.dumps(content) + "\n")
        except Exception as problem:  # noqa: BLE001 - no storage failure is worth the run
            logger.warning("the log of this run could not be written to %s: %s", self._uri, problem)


def run_names(table_uri: str) -> list[str]:
    """List the runs of a table, oldest first."""
    files = storage.list_files(storage.join(storage.absolute(table_uri), RUNS), [".json"])
    names = [uri.rsplit("/", 1)[-1].removesuffix(".json") for uri in files]
    return sorted(name for name in names if not name.startswith("."))


def read_run(table_uri: str, name: str) -> RunTrace:
    """Read the log of one run.

    Raises:
        ValueError: the file is not a run log.
        OSError: it cannot be read.
    """
    content = storage.read_json(storage.join(storage.absolute(table_uri), RUNS, f"{name}.json"))
    try:
        samples = tuple(Sample(*values) for values in content.pop("samples"))
        return RunTrace(name=name, samples=samples, **content)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"run {name!r} of {table_uri!r} is not a run log: {error}") from error
