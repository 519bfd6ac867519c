"""What a run measured, as one small file a run in the table that it worked on: `runs/<started>-<id>.json`.

The file is replaced whole every few seconds and at the end, so a run that is killed leaves its trace too. It says how
long things took, never which host they ran on, and nothing reads it but people and the table's report.
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
"""How a run stands; one that still says "running" although nobody holds the table was killed."""

_WRITE_EVERY_S = 10.0
_MAX_SAMPLES = 300
_FIRST_INTERVAL_S = 0.25


@dataclass(frozen=True)
class Sample:
    """How far a run was at a moment."""

    seconds: float
    """Since the run started."""
    done: int
    """Items that have ended; ok + filtered + failed."""
    ok: int
    filtered: int
    failed: int


@dataclass(frozen=True)
class RunTrace:
    """One run, as its file tells it."""

    name: str
    started_at: str
    """UTC, ISO 8601."""
    step: str
    """Name of the work, e.g. "encode"."""
    unit: str
    """Plural name of an item, e.g. "clips"."""
    total: int
    """Items that were to be done."""
    settings: Mapping[str, Any]
    status: str = RUNNING
    """One of "running", "done", "stopped"."""
    error: str = ""
    """What stopped it, in one line."""
    operator_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds of work by operator, summed over all workers."""
    samples: tuple[Sample, ...] = ()
    """At most about 300, in order of time; the first is the start, the last the latest."""

    @property
    def seconds(self) -> float:
        """From the start to the last that was heard of it."""
        return self.samples[-1].seconds if self.samples else 0.0

    @property
    def done(self) -> int:
        """Items that have ended."""
        return self.samples[-1].done if self.samples else 0


class RunLog:
    """Writes the trace of a run while it runs; a context manager. That it cannot be written is logged, never raised.

    Args:
        table_uri: folder of the table.
        step: name of the work.
        unit: plural name of an item.
        total: items that are to be done.
        settings: what else to know of the run, as JSON.
        write_every_s: seconds from one writing to the next.
        clock: seconds that only ever rise.
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
        """Take note of how far the run is.

        Args:
            counts: items by status: ok, filtered, failed.
            operator_s: seconds of work by operator so far.
        """
        now = self._clock()
        told = [counts.get(status, 0) for status in (OK, FILTERED, FAILED)]
        self._latest = Sample(round(now - self._started, 3), sum(told), *told)
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
        """Keep every other sample when there are too many, and take half as many from then on."""
        if len(self._samples) > _MAX_SAMPLES:
            self._samples = self._samples[::2]
            self._interval_s *= 2

    def _write(self, status: str, error: str = "") -> None:
        self._written = self._clock()
        samples = self._samples if self._latest == self._samples[-1] else [*self._samples, self._latest]
        told = {
            **self._about,
            "status": status,
            "error": error,
            "operator_s": self._operator_s,
            "samples": [list(asdict(sample).values()) for sample in samples],
        }
        try:
            storage.write_text(self._uri, json.dumps(told) + "\n")
        except Exception as problem:  # noqa: BLE001 - storage fails in many ways, and none is worth the run
            logger.warning("the trace of this run could not be written to %s: %s", self._uri, problem)


def run_names(table_uri: str) -> list[str]:
    """Return the names of all runs of a table, oldest first."""
    files = storage.list_files(storage.join(storage.absolute(table_uri), RUNS), [".json"])
    names = [uri.rsplit("/", 1)[-1].removesuffix(".json") for uri in files]
    return sorted(name for name in names if not name.startswith("."))


def read_run(table_uri: str, name: str) -> RunTrace:
    """Return the trace of one run.

    Raises:
        ValueError: the file is not one of ours.
        OSError: it cannot be read.
    """
    told = storage.read_json(storage.join(storage.absolute(table_uri), RUNS, f"{name}.json"))
    try:
        samples = tuple(Sample(*values) for values in told.pop("samples"))
        return RunTrace(name=name, samples=samples, **told)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"run {name!r} of {table_uri!r} is no trace of a run: {error}") from error
