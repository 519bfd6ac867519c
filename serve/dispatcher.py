"""Job scheduler: runs queued jobs on the engine and records their progress in the store.

A job does not depend on the HTTP connection that created it: jobs are taken from the store in order of arrival, up to a
limit at a time, and a job whose worker is lost is queued again.
"""

import asyncio
import logging
from contextlib import aclosing

import numpy as np

from serve.artifacts import Artifacts
from serve.engine import (
    Event,
    Generation,
    GenerationFailed,
    ReferenceReady,
    StageFinished,
    StageStarted,
    VideoEngine,
    VideoReady,
    WorkerLostError,
)
from serve.images import decode_png
from serve.job_store import Job, JobNotFoundError, JobStore
from serve.protocol import Variant

logger = logging.getLogger(__name__)

# Time that the deletion of a running job waits for its stage to stop; the job is deleted either way.
_CANCEL_WAIT_S = 2.0
_DEFAULT_STAGE_S = 1.0
_SMOOTHING = 0.7


class StageTimes:
    """Duration of each stage as an exponential moving average, for progress in percent of time."""

    def __init__(self, stages: tuple[str, ...]) -> None:
        self._stages = stages
        self._measured: dict[str, float] = {}

    def record(self, stage: str, seconds: float) -> None:
        """Add a measurement."""
        known = self._measured.get(stage, seconds)
        self._measured[stage] = _SMOOTHING * known + (1 - _SMOOTHING) * seconds

    @property
    def total_s(self) -> float:
        """Expected seconds of one job."""
        return self._sum(self._stages)

    def percent_before(self, stage: str) -> int:
        """Return the progress of a job when `stage` starts, 0 to 99."""
        done = self._sum(self._stages[: self._stages.index(stage)])
        return min(99, int(100 * done / max(self.total_s, 1e-9)))

    def _sum(self, stages: tuple[str, ...]) -> float:
        """Return the total of the stages; a stage without a measurement counts as the average."""
        known = self._measured.values()
        average = sum(known) / len(known) if known else _DEFAULT_STAGE_S
        return sum(self._measured.get(stage, average) for stage in stages)


class Dispatcher:
    """Scheduler of one store's jobs on one engine."""

    def __init__(
        self,
        store: JobStore,
        artifacts: Artifacts,
        engine: VideoEngine,
        *,
        stages: tuple[str, ...],
        max_running: int,
        max_attempts: int,
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._engine = engine
        self._max_running = max_running
        self._max_attempts = max_attempts
        self._running: dict[str, asyncio.Task[None]] = {}
        self._closing = False
        self.times = StageTimes(stages)

    def resume(self) -> None:
        """Continue the jobs of an earlier process; needs a running event loop."""
        for job in self._store.requeue_interrupted(self._max_attempts):
            logger.info("job %s was interrupted and is now %s", job.id, job.status)
        self._artifacts.keep_only(self._store.ids())
        self.schedule()

    def schedule(self) -> None:
        """Start queued jobs up to the limit; called whenever a job arrives or ends."""
        if self._closing:
            return
        # A running job stays "queued" in the store until its first stage starts, so those are skipped.
        for job in self._store.queued(limit=len(self._running) + self._max_running):
            if len(self._running) >= self._max_running:
                return
            if job.id not in self._running:
                task = asyncio.create_task(self._execute(job), name=job.id)
                self._running[job.id] = task
                task.add_done_callback(self._on_done)

    def estimated_wait_s(self) -> int:
        """Return the expected seconds until the full queue has room: 1 to 120."""
        # The official client does not wait longer than 120 s.
        return max(1, min(120, round(self.times.total_s / self._max_running)))

    async def cancel(self, job_id: str) -> None:
        """Cancel a job if it runs, and wait briefly for it to stop."""
        task = self._running.get(job_id)
        if task is not None:
            task.cancel()
            await asyncio.wait([task], timeout=_CANCEL_WAIT_S)

    async def close(self) -> None:
        """Cancel all running jobs; they stay in progress in the store and are queued again at the next start."""
        self._closing = True
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_done(self, task: "asyncio.Task[None]") -> None:
        del self._running[task.get_name()]
        if not task.cancelled() and task.exception() is not None:
            logger.error("job %s: the dispatcher failed", task.get_name(), exc_info=task.exception())
        self.schedule()

    async def _execute(self, job: Job) -> None:
        """Run one job to its end."""
        try:
            generation = Generation(job.id, job.prompt, job.negative_prompt, job.seed, self._reference_image(job))
            async with aclosing(self._engine.run(generation)) as events:
                async for event in events:
                    await self._on_event(job.id, event)
        except JobNotFoundError:
            # The job was deleted while it ran: late results are removed.
            self._artifacts.remove(job.id)
        except WorkerLostError as error:
            logger.warning("job %s lost its worker: %s", job.id, error)
            self._retry(job.id)
        except Exception:
            logger.exception("job %s failed with an internal error", job.id)
            self._fail(job.id, "internal_error", "Internal error of the service; see its log.")

    async def _on_event(self, job_id: str, event: Event) -> None:
        match event:
            case StageStarted(stage):
                if self._store.get(job_id).status == "queued":
                    self._store.start(job_id)
                self._store.report(job_id, stage, self.times.percent_before(stage))
            case StageFinished(stage, seconds):
                self.times.record(stage, seconds)
            case ReferenceReady(png):
                await self._write(job_id, "reference", png)
            case VideoReady(mp4):
                await self._write(job_id, "video", mp4)
                self._store.complete(job_id)
            case GenerationFailed(code, message):
                self._store.fail(job_id, code, message)

    async def _write(self, job_id: str, variant: Variant, content: bytes) -> None:
        """Write in a thread; cancellation waits for it, so that no file appears after the job's folder was removed."""
        writing = asyncio.create_task(asyncio.to_thread(self._artifacts.write, job_id, variant, content))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])
            raise

    def _reference_image(self, job: Job) -> np.ndarray | None:
        png = self._artifacts.read_input(job.id)
        return None if png is None else decode_png(png)

    def _retry(self, job_id: str) -> None:
        """Queue a job again whose worker was lost; the attempt counts even if no stage had started."""
        try:
            if self._store.get(job_id).status == "queued":
                self._store.start(job_id)
            self._store.retry(job_id, self._max_attempts)
        except JobNotFoundError:
            self._artifacts.remove(job_id)

    def _fail(self, job_id: str, code: str, message: str) -> None:
        try:
            self._store.fail(job_id, code, message)
        except JobNotFoundError:
            self._artifacts.remove(job_id)
