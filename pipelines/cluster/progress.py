"""Progress display with rate and time left: live rows on a terminal, else one line every ten seconds.

    with Progress() as progress, progress.task("encode", total=60, unit="clips") as task:
        task.advance(4)

For the driver only. Several tasks may run at once, from any thread.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.live import Live

_LINE_EVERY_S = 10.0


@contextlib.contextmanager
def shown(progress: "Progress | None") -> Iterator["Progress"]:
    """Yield `progress`; without one, a display of its own for as long as the context lasts."""
    if progress is not None:
        yield progress
        return
    with Progress() as own:
        yield own


class Progress:
    """Display of all running tasks of one job."""

    def __init__(self, stream: TextIO | None = None, line_every_s: float = _LINE_EVERY_S) -> None:
        self._stream = stream or sys.stderr
        self._line_every_s = line_every_s
        self._tasks: list[Task] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._print_lines, name="progress", daemon=True)
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._stream.isatty():
            self._live = Live(get_renderable=self.line, console=Console(file=self._stream), transient=True)
            self._live.start()
        else:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        if self._live is not None:
            self._live.stop()
        else:
            self._thread.join()

    def task(self, name: str, total: int, unit: str) -> "Task":
        """Return a task to enter with `with`; `unit` is a plural, e.g. "clips"."""
        return Task(self, name, total, unit)

    def line(self) -> str:
        """Return the state of every running task, one per line."""
        with self._lock:
            return "\n".join(task.describe() for task in self._tasks)

    def say(self, text: str) -> None:
        """Print a permanent line."""
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._stream, flush=True)

    def _add(self, task: "Task") -> None:
        with self._lock:
            self._tasks.append(task)

    def _remove(self, task: "Task", failed: bool) -> None:
        with self._lock:
            self._tasks.remove(task)
        if not failed:
            self.say(f"{task.name}: {task.completed} {task.unit} in {_clock(task.elapsed_s)}")

    def _print_lines(self) -> None:
        while not self._stopped.wait(self._line_every_s):
            line = self.line()
            if line:
                self.say(line.replace("\n", " | "))


class Task:
    """One step of a job, counted in `unit`."""

    def __init__(self, progress: Progress, name: str, total: int, unit: str) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.completed = 0
        self._progress = progress
        self._detail = ""
        self._started = time.monotonic()
        # The rate counts from the first update: start-up is not speed, and a resumed task begins in the middle.
        self._first: tuple[float, int] | None = None

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self._progress._add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress._remove(self, failed=kind is not None)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the task began."""
        return time.monotonic() - self._started

    def advance(self, count: int = 1) -> None:
        """Add `count` to the completed units."""
        self.update(completed=self.completed + count)

    def update(self, completed: int | None = None, detail: str | None = None, total: int | None = None) -> None:
        """Set the completed units, a detail to show (e.g. "loss 0.12"), and the total once it is known."""
        if completed is not None:
            self.completed = completed
            if self._first is None:
                self._first = (time.monotonic(), completed)
        self._detail = self._detail if detail is None else detail
        self.total = self.total if total is None else total

    def describe(self) -> str:
        """Return e.g. "base 120/300 steps, 2.1 steps/s, 1:25 left, loss 0.12"."""
        parts = [f"{self.name} {self.completed}/{self.total} {self.unit}"]
        if self._first is not None and self.completed > self._first[1]:
            rate = (self.completed - self._first[1]) / max(time.monotonic() - self._first[0], 1e-9)
            parts.append(
                f"{rate:.3g} {self.unit}/s" if rate >= 1 else f"{1 / rate:.3g} s a {self.unit.removesuffix('s')}"
            )
            parts.append(f"{_clock((self.total - self.completed) / rate)} left")
        else:
            parts.append(f"waiting {_clock(self.elapsed_s)} for the {'next' if self.completed else 'first'}")
        return ", ".join([*parts, self._detail] if self._detail else parts)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
