"""The job store: legal transitions only, and nothing is lost by a crash."""

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from serve.job_store import (
    LEGAL_TRANSITIONS,
    IllegalTransitionError,
    JobNotFoundError,
    JobStore,
    NewJob,
    new_job_id,
)
from serve.protocol import JobStatus

NEW = NewJob("videogen-tiny", "a red circle moving left", "", 7, "64x64", "0.9375", 16.0, 15)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.sqlite"


@pytest.fixture
def store(path: Path) -> JobStore:
    ticks = itertools.count(1000)
    return JobStore(path, clock=lambda: float(next(ticks)))


def add(store: JobStore) -> str:
    job_id = new_job_id()
    assert store.add(NEW, job_id) is not None
    return job_id


def bring_to(store: JobStore, status: str) -> str:
    job_id = add(store)
    if status != "queued":
        store.start(job_id)
    if status == "completed":
        store.complete(job_id)
    if status == "failed":
        store.fail(job_id, "stage_failed", "why")
    assert store.get(job_id).status == status
    return job_id


MOVES = {
    "queued": lambda store, job_id: store.requeue(job_id),
    "in_progress": lambda store, job_id: store.start(job_id),
    "completed": lambda store, job_id: store.complete(job_id),
    "failed": lambda store, job_id: store.fail(job_id, "code", "message"),
}


@pytest.mark.parametrize(("before", "after"), itertools.product(LEGAL_TRANSITIONS, LEGAL_TRANSITIONS))
def test_only_the_transitions_of_the_table_happen(store: JobStore, before: JobStatus, after: JobStatus) -> None:
    job_id = bring_to(store, before)
    if after in LEGAL_TRANSITIONS[before]:
        MOVES[after](store, job_id)
        assert store.get(job_id).status == after
    else:
        with pytest.raises(IllegalTransitionError, match=f"is {before} and cannot become {after}"):
            MOVES[after](store, job_id)
        assert store.get(job_id).status == before


def test_progress_never_goes_back_and_only_completion_makes_it_100(store: JobStore) -> None:
    job_id = bring_to(store, "in_progress")
    seen = []
    for percent in (10, 60, 30, 250):
        store.report(job_id, "base", percent)
        seen.append(store.get(job_id).progress)
    assert seen == [10, 60, 60, 99]
    assert store.complete(job_id).progress == 100


def test_a_full_queue_takes_no_more(store: JobStore) -> None:
    assert store.add(NEW, new_job_id(), max_queued=1) is not None
    assert store.add(NEW, new_job_id(), max_queued=1) is None
    assert store.count("queued") == 1


def test_pages_follow_each_other_in_both_orders(store: JobStore) -> None:
    ids = [add(store) for _ in range(5)]
    for newest_first, expected in ((False, ids), (True, ids[::-1])):
        first, more = store.page(limit=3, newest_first=newest_first)
        assert ([job.id for job in first], more) == (expected[:3], True)
        rest, more = store.page(limit=3, after=first[-1].id, newest_first=newest_first)
        assert ([job.id for job in rest], more) == (expected[3:], False)


def test_a_deleted_job_is_gone_whatever_comes_after(store: JobStore) -> None:
    job_id = bring_to(store, "in_progress")
    store.delete(job_id)
    for late in (lambda: store.complete(job_id), lambda: store.get(job_id), lambda: store.delete(job_id)):
        with pytest.raises(JobNotFoundError):
            late()
    store.report(job_id, "base", 50)
    assert store.ids() == set()


def test_a_restart_queues_again_what_was_running_in_the_old_order(path: Path, store: JobStore) -> None:
    done, running, waiting = bring_to(store, "completed"), bring_to(store, "in_progress"), add(store)
    store.report(running, "base", 40)
    store.close()

    reopened = JobStore(path)
    assert [job.id for job in reopened.requeue_interrupted(max_attempts=3)] == [running]
    again = reopened.get(running)
    assert (again.status, again.stage, again.progress, again.attempts, again.seed) == ("queued", None, 0, 1, 7)
    assert [job.id for job in reopened.queued(limit=10)] == [running, waiting]
    assert reopened.get(done).status == "completed"


def test_a_job_that_kills_its_worker_each_time_fails_in_the_end(path: Path, store: JobStore) -> None:
    job_id = add(store)
    for _ in range(2):
        store.start(job_id)
        assert store.retry(job_id, max_attempts=3).status == "queued"
    store.start(job_id)
    failed = store.retry(job_id, max_attempts=3)
    assert (failed.status, failed.error_code) == ("failed", "worker_lost")


@pytest.mark.process
def test_a_job_survives_the_kill_of_the_process_that_stored_it(path: Path) -> None:
    script = f"""
import os, signal, sys
from pathlib import Path
from serve.job_store import JobStore, NewJob
store = JobStore(Path({str(path)!r}))
for name in ("video_a", "video_b"):
    store.add(NewJob(**{NEW.__dict__!r}), name)
store.start("video_a")
os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", script], env=environment, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    store = JobStore(path)
    assert [(job.id, job.status) for job in store.requeue_interrupted(max_attempts=3)] == [("video_a", "queued")]
    assert store.ids() == {"video_a", "video_b"}


def test_a_database_of_another_release_is_not_touched(path: Path, store: JobStore) -> None:
    store._database.execute("PRAGMA user_version = 99")
    store.close()
    with pytest.raises(RuntimeError, match="job schema 99"):
        JobStore(path)
