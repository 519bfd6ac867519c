"""Durable job store: one SQLite table in write-ahead mode, and a state machine.

A job is stored before work on it starts, and every change is on disk before it is visible, so a restart loses nothing:
jobs that were running are queued again. One process writes (the API replica); any number may read.
"""

import dataclasses
import sqlite3
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from serve.protocol import JobStatus

# The complete state machine. A job can be deleted in every state.
LEGAL_TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    "queued": frozenset({"in_progress", "failed"}),
    "in_progress": frozenset({"completed", "failed", "queued"}),
    "completed": frozenset(),
    "failed": frozenset(),
}

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE jobs (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL,
    stage TEXT,
    progress INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    model TEXT NOT NULL,
    prompt TEXT NOT NULL,
    negative_prompt TEXT NOT NULL,
    seed INTEGER NOT NULL,
    size TEXT NOT NULL,
    seconds TEXT NOT NULL,
    fps REAL NOT NULL,
    num_frames INTEGER NOT NULL,
    created_at REAL NOT NULL,
    started_at REAL,
    completed_at REAL,
    error_code TEXT,
    error_message TEXT
);
CREATE INDEX jobs_by_status ON jobs (status, sequence);
"""


@dataclasses.dataclass(frozen=True)
class NewJob:
    """Request of a client, with defaults filled in."""

    model: str
    prompt: str
    negative_prompt: str
    seed: int
    size: str
    seconds: str
    fps: float
    num_frames: int


@dataclasses.dataclass(frozen=True)
class Job(NewJob):
    """A stored job. Times are Unix seconds; `sequence` is the order of arrival."""

    sequence: int
    id: str
    status: JobStatus
    stage: str | None
    progress: int
    attempts: int
    created_at: float
    started_at: float | None
    completed_at: float | None
    error_code: str | None
    error_message: str | None


class JobNotFoundError(KeyError):
    """The job does not exist."""


class IllegalTransitionError(RuntimeError):
    """Change of state that `LEGAL_TRANSITIONS` does not allow."""


def new_job_id() -> str:
    """Return an identifier that cannot be guessed; it also names the job's folder."""
    return f"video_{uuid.uuid4().hex}"


class JobStore:
    """Jobs of one service, in one file."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._clock = clock
        # Serve may construct in one thread and call from another; calls never overlap, as all come from one event loop.
        self._database = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        self._database.row_factory = sqlite3.Row
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._create_schema(path)

    def _create_schema(self, path: Path) -> None:
        with self._transaction():
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _SCHEMA.strip().split(";\n"):
                    self._database.execute(statement)
                self._database.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            elif version != _SCHEMA_VERSION:
                raise RuntimeError(
                    f"{path} has job schema {version}, this release reads {_SCHEMA_VERSION}: give another --storage"
                )

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._database)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def add(self, new: NewJob, job_id: str, max_queued: int | None = None) -> Job | None:
        """Store a queued job; return None if `max_queued` jobs are queued already."""
        values = dataclasses.asdict(new) | {"id": job_id, "status": "queued", "created_at": self._clock()}
        columns = ", ".join(values)
        with self._transaction():
            if max_queued is not None and self.count("queued") >= max_queued:
                return None
            self._database.execute(
                f"INSERT INTO jobs ({columns}) VALUES ({', '.join('?' * len(values))})",  # noqa: S608
                tuple(values.values()),
            )
        return self.get(job_id)

    def get(self, job_id: str) -> Job:
        """Return a job; raise `JobNotFoundError` if there is none."""
        row = self._database.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if row is None:
            raise JobNotFoundError(job_id)
        return Job(**dict(row))

    def count(self, status: JobStatus) -> int:
        """Return the number of jobs in `status`."""
        return int(self._database.execute("SELECT count(*) FROM jobs WHERE status = ?", (status,)).fetchone()[0])

    def queue_position(self, job: Job) -> int:
        """Return the number of queued jobs ahead of `job`."""
        query = "SELECT count(*) FROM jobs WHERE status = 'queued' AND sequence < ?"
        return int(self._database.execute(query, (job.sequence,)).fetchone()[0])

    def queued(self, limit: int) -> list[Job]:
        """Return the oldest queued jobs."""
        query = "SELECT * FROM jobs WHERE status = 'queued' ORDER BY sequence LIMIT ?"
        return [Job(**dict(row)) for row in self._database.execute(query, (limit,))]

    def page(self, *, limit: int, after: str | None = None, newest_first: bool = True) -> tuple[list[Job], bool]:
        """Return up to `limit` jobs after the job `after`, and whether there are more."""
        order, compare = ("DESC", "<") if newest_first else ("ASC", ">")
        where, values = "", tuple[int, ...]()
        if after is not None:
            where, values = f"WHERE sequence {compare} ?", (self.get(after).sequence,)
        query = f"SELECT * FROM jobs {where} ORDER BY sequence {order} LIMIT ?"  # noqa: S608
        jobs = [Job(**dict(row)) for row in self._database.execute(query, (*values, limit + 1))]
        return jobs[:limit], len(jobs) > limit

    def ids(self) -> set[str]:
        """Return the identifiers of all jobs."""
        return {row["id"] for row in self._database.execute("SELECT id FROM jobs")}

    def start(self, job_id: str) -> Job:
        """Mark a job as started by its first stage."""
        return self._move(job_id, "in_progress", started_at=self._clock(), attempts=self.get(job_id).attempts + 1)

    def requeue(self, job_id: str) -> Job:
        """Return a running job to its place in the queue."""
        return self._move(job_id, "queued", started_at=None, stage=None, progress=0)

    def complete(self, job_id: str) -> Job:
        """Mark a job as completed; its video must be on disk."""
        return self._move(job_id, "completed", completed_at=self._clock(), stage=None, progress=100)

    def fail(self, job_id: str, code: str, message: str) -> Job:
        """Mark a job as failed."""
        return self._move(job_id, "failed", completed_at=self._clock(), error_code=code, error_message=message)

    def report(self, job_id: str, stage: str, progress: int) -> None:
        """Record stage and progress of a running job. Progress never decreases, and reaches 100 only by `complete`."""
        self._database.execute(
            "UPDATE jobs SET stage = ?, progress = max(progress, ?) WHERE id = ? AND status = 'in_progress'",
            (stage, min(progress, 99), job_id),
        )

    def delete(self, job_id: str) -> None:
        """Delete a job; raise `JobNotFoundError` if there is none."""
        if self._database.execute("DELETE FROM jobs WHERE id = ?", (job_id,)).rowcount == 0:
            raise JobNotFoundError(job_id)

    def requeue_interrupted(self, max_attempts: int) -> list[Job]:
        """Queue the jobs again that were running when the last process ended; fail those without attempts left."""
        rows = self._database.execute("SELECT id, attempts FROM jobs WHERE status = 'in_progress' ORDER BY sequence")
        interrupted = rows.fetchall()
        return [self.retry(row["id"], max_attempts) for row in interrupted]

    def retry(self, job_id: str, max_attempts: int) -> Job:
        """Queue a running job again; fail it if it has been started `max_attempts` times."""
        attempts = self.get(job_id).attempts
        if attempts < max_attempts:
            return self.requeue(job_id)
        return self.fail(job_id, "worker_lost", f"The worker was lost {attempts} times; send the request again.")

    def _move(self, job_id: str, status: JobStatus, **changes: float | str | None) -> Job:
        """Change the state, and the columns in `changes`, in one transaction that checks the state machine."""
        with self._transaction():
            job = self.get(job_id)
            if status not in LEGAL_TRANSITIONS[job.status]:
                raise IllegalTransitionError(f"job {job_id} is {job.status} and cannot become {status}")
            assignments = ", ".join(f"{column} = ?" for column in ("status", *changes))
            self._database.execute(
                f"UPDATE jobs SET {assignments} WHERE id = ?",  # noqa: S608
                (status, *changes.values(), job_id),
            )
        return self.get(job_id)


class _Transaction:
    """BEGIN IMMEDIATE ... COMMIT: takes the write lock first, so that values read stay valid until the write."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._database.execute("COMMIT" if kind is None else "ROLLBACK")
