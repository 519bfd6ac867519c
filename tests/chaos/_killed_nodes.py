"""Local Ray cluster of a head and two nodes, whose nodes are killed with SIGKILL during a job."""

import os
import random
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil

ROOT = Path(__file__).resolve().parents[2]
NODES, CPUS = 2, 2
_WAYS = ("raylet", "node")
"""Kinds of failures, in turns: the raylet dies, which holds the object store, and its workers a moment later; or all
processes of the node die at once, as after a power failure."""


@dataclass
class NodeKillLog:
    """Record of `run_under_node_kills`."""

    killed: list[str] = field(default_factory=list)
    """Kind of failure and running job, e.g. "raylet in ingest"."""
    lost_workers: int = 0
    """Worker processes that ran on the killed nodes."""
    runs: int = 0
    last_lines: list[str] = field(default_factory=list)
    """Last log lines of each failed run."""


class DyingNodes:
    """The cluster. Its head has no cores, so all work runs on nodes that may be killed."""

    def __init__(self, seed: int, gpus: int) -> None:
        self._rng = random.Random(seed)
        self._gpus = gpus
        self._cluster: Any = None

    def __enter__(self) -> Self:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.address = self._cluster.address
        for _ in range(NODES):
            self.join()
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.shutdown()

    def join(self) -> None:
        """Add a node. With a logical GPU, decoding and encoding run in different processes."""
        self._cluster.add_node(num_cpus=CPUS, num_gpus=self._gpus)

    def kill(self, way: str) -> int:
        """Kill a busy node; return the number of its busy workers, 0 if no node was busy and none was killed."""
        busy = [(node, working) for node in self._cluster.worker_nodes if (working := _at_work(_raylet(node)))]
        if not busy:
            return 0
        node, working = self._rng.choice(sorted(busy, key=lambda one: _raylet(one[0]).pid))
        raylet = _raylet(node)
        dying = [raylet, *(raylet.children(recursive=True) if way == "node" else ())]
        for process in dying:
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._cluster.remove_node(node, allow_graceful=False)
        return len(working)


def _raylet(node: Any) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def _at_work(raylet: psutil.Process) -> list[psutil.Process]:
    """Return the processes of a node that run a task or are an actor."""
    found = []
    for process in raylet.children(recursive=True):
        try:
            name = (process.cmdline() or [""])[0]
        except psutil.Error:
            continue
        if name.startswith("ray::") and not name.startswith("ray::IDLE"):
            found.append(process)
    return found


def run_under_node_kills(
    command: list[str], table: Path, kills: int, seed: int, gpus: int, most_s: float = 1.5
) -> NodeKillLog:
    """Repeat a command on the cluster until it succeeds; half of the kills fall into ingest, half into encode.

    After each kill a new node joins. The next kill follows after a further commit.

    Args:
        command: command line of a resumable job.
        table: folder of the table that it writes.
        kills: number of nodes to kill.
        seed: seed of the random choices.
        gpus: logical GPUs of each node.
        most_s: longest time of work before the next kill.
    """
    rng, log = random.Random(seed), NodeKillLog()
    with DyingNodes(seed, gpus) as nodes, tempfile.TemporaryDirectory(prefix="vgc-", dir="/tmp") as temporary:
        env = {**os.environ, "RAY_ADDRESS": nodes.address, "TMPDIR": temporary}
        for _ in range(3):
            log.runs += 1
            path = Path(temporary, f"{log.runs}.log")
            with path.open("wb") as file:
                driver = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, env=env)
                try:
                    _watch(driver, nodes, table, kills, rng, most_s, log)
                finally:
                    driver.kill()
                    driver.wait()
            if driver.returncode == 0:
                return log
            log.last_lines.append("\n".join(path.read_text(errors="replace").strip().splitlines()[-8:]))
    raise AssertionError(f"not done: {log}")


def _watch(
    driver: subprocess.Popen,
    nodes: DyingNodes,
    table: Path,
    kills: int,
    rng: random.Random,
    most_s: float,
    log: NodeKillLog,
) -> None:
    """Kill nodes during one run; return when its driver has ended."""
    due = 0.0
    seen: set[str] = set()
    while driver.poll() is None:
        time.sleep(0.1)
        phase = "encode" if (table / "clips" / "manifest.json").exists() else "ingest"
        wanted = kills // 2 if phase == "ingest" else kills
        if len(log.killed) >= wanted:
            continue
        committed = {path.name for path in (table if phase == "encode" else table / "clips").glob("parts/*")}
        if not due and committed - seen:
            seen |= committed
            due = time.monotonic() + rng.uniform(0, most_s)
        if due and time.monotonic() >= due:
            way = _WAYS[len(log.killed) % len(_WAYS)]
            if lost := nodes.kill(way):
                log.killed.append(f"{way} in {phase}")
                log.lost_workers += lost
                nodes.join()
                due = 0.0
