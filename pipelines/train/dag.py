"""Dependency graph of steps: parallel execution within resources, skipping of finished steps, failure isolation."""

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pipelines.cluster.connection import Resources

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Node:
    """Step of the graph."""

    name: str
    what: str
    """For the reader of the plan, e.g. "500 steps of 32"."""
    work: Callable[[], object]
    is_done: Callable[[], bool]
    """Asked when all needed steps are done; must be cheap."""
    needs: tuple[str, ...] = ()
    resources: Resources = field(default_factory=Resources)


@dataclass
class Outcome:
    """Outcome of a run, by names of steps."""

    finished: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Cause by step."""
    blocked: dict[str, str] = field(default_factory=dict)
    """By step, the failed or blocked step that it needs."""


def pending(nodes: Sequence[Node]) -> list[str]:
    """Return the pending steps in order: unfinished steps and their dependents."""
    names: list[str] = []
    for node in nodes:
        if any(need in names for need in node.needs) or not node.is_done():
            names.append(node.name)
    return names


def run(nodes: Sequence[Node], total: Resources, on_skip: Callable[[Node], None]) -> Outcome:
    """Run the graph; `nodes` are in topological order. Failed steps are part of the outcome."""
    return _Run(nodes, total, on_skip).run()


def cause_of(error: BaseException) -> str:
    """Return the root cause of an exception in one line, unwrapping Ray's wrappers."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        return cause_of(failures[min(failures)])
    inner = getattr(error, "controller_failure", None) or getattr(error, "cause", None)
    if isinstance(inner, BaseException):
        return cause_of(inner)
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__


class _Run:
    def __init__(self, nodes: Sequence[Node], total: Resources, on_skip: Callable[[Node], None]) -> None:
        self._waiting = list(nodes)
        self._running: list[Node] = []
        self._total = total
        self._on_skip = on_skip
        self._ended: queue.Queue[tuple[Node, bool | BaseException]] = queue.Queue()
        self._outcome = Outcome()

    def run(self) -> Outcome:
        while True:
            self._start_ready()
            if not self._running:
                return self._outcome
            # With a timeout, so that Ctrl-C is handled.
            try:
                node, result = self._ended.get(timeout=1)
            except queue.Empty:
                continue
            self._running.remove(node)
            self._note(node, result)

    def _start_ready(self) -> None:
        started = True
        while started:
            started = False
            for node in list(self._waiting):
                culprit = next((need for need in node.needs if self._is_lost(need)), None)
                if culprit is not None:
                    self._waiting.remove(node)
                    self._outcome.blocked[node.name] = culprit
                    started = True
                elif all(self._is_over(need) for need in node.needs) and self._fits(node):
                    self._waiting.remove(node)
                    self._running.append(node)
                    threading.Thread(target=self._execute, args=(node,), name=node.name, daemon=True).start()
                    started = True

    def _execute(self, node: Node) -> None:
        try:
            done = node.is_done()
            if not done:
                node.work()
            self._ended.put((node, done))
        except BaseException as error:
            logger.debug("step %s failed", node.name, exc_info=True)
            self._ended.put((node, error))

    def _note(self, node: Node, result: bool | BaseException) -> None:
        if isinstance(result, BaseException):
            self._outcome.failed[node.name] = cause_of(result)
        elif result:
            self._outcome.skipped.append(node.name)
            self._on_skip(node)
        else:
            self._outcome.finished.append(node.name)

    def _fits(self, node: Node) -> bool:
        if not self._running:
            return True
        wanted = node.resources
        if wanted.alone or any(running.resources.alone for running in self._running):
            return False
        if wanted.cpus > self._total.cpus or wanted.gpus > self._total.gpus:
            return True  # an autoscaling cluster will add it; Ray keeps the step waiting until then
        cpus = wanted.cpus + sum(running.resources.cpus for running in self._running)
        gpus = wanted.gpus + sum(running.resources.gpus for running in self._running)
        return cpus <= self._total.cpus and gpus <= self._total.gpus

    def _is_over(self, name: str) -> bool:
        return name in self._outcome.finished or name in self._outcome.skipped

    def _is_lost(self, name: str) -> bool:
        return name in self._outcome.failed or name in self._outcome.blocked
