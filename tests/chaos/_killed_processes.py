"""Runs of a command whose processes are killed with SIGKILL until it has ended well."""

import os
import random
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]

ROLES = ("driver", "raylet", "worker", "decoder", "gcs_server")
"""Processes to kill, in turns: the driver; the raylet, which holds the object store; a worker that runs a task; a child
that decodes videos; the head of the cluster."""
_MARK = "VIDEOGEN_CHAOS"
_LINES = 8
_GRACE_S = 30.0
"""Time for the remaining processes of killed jobs to end by themselves after the last run has ended."""


@dataclass
class KillLog:
    """Record of `run_under_kills`."""

    runs: int = 0
    killed: list[str] = field(default_factory=list)
    """Roles of the killed processes, in order."""
    unnoticed: list[str] = field(default_factory=list)
    """Roles whose death the driver did not notice in time, so that it was killed as well."""
    last_lines: list[str] = field(default_factory=list)
    """Last log lines of each failed run."""
    orphans: list[str] = field(default_factory=list)
    """Processes that did not end by themselves."""
    outlived_s: float = 0.0
    """Time from the end of the last run to the end of the last process."""
    left_files: list[str] = field(default_factory=list)
    """Temporary files that remained."""


class ProcessTree:
    """Job process with all processes that it has started, including those whose parent has died."""

    def __init__(self, command: list[str], temporary: Path) -> None:
        self._mark = uuid.uuid4().hex
        self.log = temporary / f"{self._mark}.log"
        places = {"TMPDIR": str(temporary), "RAY_TMPDIR": str(temporary)}
        env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        with self.log.open("wb") as log:  # a pipe stays open as long as any process of the tree lives
            self.driver = subprocess.Popen(
                command, cwd=ROOT, stdout=log, stderr=log, env={**env, **places, _MARK: self._mark}
            )
        self._members: set[psutil.Process] = set()

    def refresh(self) -> None:
        """Find new members: descendants, and orphans whose environment carries the mark."""
        try:
            driver = psutil.Process(self.driver.pid)
            self._members |= {driver, *driver.children(recursive=True)}
        except psutil.NoSuchProcess:
            pass
        for process in psutil.process_iter():
            try:
                if process not in self._members and process.environ().get(_MARK) == self._mark:
                    self._members.add(process)
            except (psutil.Error, OSError):
                continue

    def alive(self) -> Iterator[tuple[str, psutil.Process]]:
        """Yield the live processes with their roles."""
        for process in self._members:
            try:
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    yield _role(process, self.driver.pid), process
            except psutil.Error:
                continue

    def kill(self, role: str, rng: random.Random) -> bool:
        """Kill a process of this role; return whether there was one."""
        found = sorted((process for one, process in self.alive() if one == role), key=lambda process: process.pid)
        if not found:
            return False
        try:
            rng.choice(found).kill()
        except psutil.NoSuchProcess:
            return False
        return True

    def end(self, grace_s: float) -> list[str]:
        """Wait until all processes have ended, kill the others, and return descriptions of those."""
        until = time.monotonic() + grace_s
        while True:
            self.refresh()
            left = list(self.alive())
            if not left or time.monotonic() > until:
                break
            time.sleep(0.2)
        lines = [f"{role} {' '.join(process.cmdline())[:120]!r}" for role, process in left]
        for _, process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        return lines


def _role(process: psutil.Process, driver: int) -> str:
    words = process.cmdline() or [""]
    name = words[0].rsplit("/", 1)[-1]
    if process.pid == driver:
        return "driver"
    if "videogen.data.isolation._server" in words:
        return "decoder"
    if name.startswith("ray::") and not name.startswith("ray::IDLE"):
        return "worker"
    return name


def run_under_kills(command: list[str], kills: int, seed: int, most_s: float, notice_s: float = 30.0) -> KillLog:
    """Repeat a command until it succeeds, killing one of its processes at random times.

    Args:
        command: command line of a resumable job.
        kills: number of kills.
        seed: seed of the random choices.
        most_s: longest time of work before the next kill.
        notice_s: time for a driver to notice that its cluster is gone.
    """
    rng, log = random.Random(seed), KillLog()
    trees: list[ProcessTree] = []
    temporary = Path(tempfile.mkdtemp(prefix="vgc-", dir="/tmp"))  # holds sockets, whose paths must be short
    try:
        for _ in range(kills + 5):
            tree = ProcessTree(command, temporary)
            log.runs += 1
            trees.append(tree)
            _watch(tree, log, kills, rng, most_s, notice_s)
            if tree.driver.returncode == 0:
                started = time.monotonic()
                # Processes that outlive a killed driver run beside the next run, as in production.
                log.orphans = [line for one in trees for line in one.end(_GRACE_S)]
                log.outlived_s = time.monotonic() - started
                log.left_files = sorted(path.name for path in temporary.glob("videogen-*"))
                return log
            lines = tree.log.read_text(errors="replace").strip().splitlines()
            log.last_lines.append("\n".join(lines[-_LINES:]))
        raise AssertionError(f"not done: {log}")
    finally:
        for tree in trees:
            tree.end(0)
        shutil.rmtree(temporary, ignore_errors=True)


def _watch(tree: ProcessTree, log: KillLog, kills: int, rng: random.Random, most_s: float, notice_s: float) -> None:
    """Kill processes of one run; return when its driver has ended."""
    due, deadline = 0.0, float("inf")
    while tree.driver.poll() is None:
        time.sleep(0.1)
        tree.refresh()
        now = time.monotonic()
        if now > deadline:
            log.unnoticed.append(log.killed[-1])
            tree.driver.kill()
            tree.driver.wait()
            continue
        if deadline < float("inf") or len(log.killed) >= kills:
            continue
        role = ROLES[len(log.killed) % len(ROLES)]
        if not due and any(one == "worker" for one, _ in tree.alive()):
            due = now + rng.uniform(0.2, most_s)
        if due and now >= due and tree.kill(role, rng):
            log.killed.append(role)
            due = 0.0
            if role in ("driver", "raylet", "gcs_server"):
                deadline = now + notice_s
