"""A Ray cluster of a head and two nodes on this machine, whose nodes die with -9 in the middle of a job."""

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

ROOT = Path(__file__).resolve().parent.parent
NODES, CPUS = 2, 2
_WAYS = ("raylet", "node")
"""What dies, in turns: the raylet, which holds the object store, and whom its workers outlive for a moment; or all of
the node's processes at once, as when a machine is switched off."""


@dataclass
class NodeFire:
    """What happened in `run_under_node_kills`."""

    killed: list[str] = field(default_factory=list)
    """What died while which table was made, e.g. "raylet in ingest"."""
    lost_workers: int = 0
    """Processes at work on the nodes that died."""
    runs: int = 0
    said: list[str] = field(default_factory=list)
    """The last lines of each run that did not end well."""


class DyingNodes:
    """The cluster; the head has no cores, so all work is on nodes that may die."""

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
        """Let a new node join; with a GPU, as Ray believes, it decodes in one process and encodes in another."""
        self._cluster.add_node(num_cpus=CPUS, num_gpus=self._gpus)

    def kill(self, way: str) -> int:
        """Kill a node that is at work; return how many of its processes were, 0 if no node was and none was killed."""
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
) -> NodeFire:
    """Run a command on the cluster until it ends well; half of the kills fall into ingest, half into encode.

    After each kill a new node joins; the next follows when something more has been committed.

    Args:
        command: see `under_fire.encode_command`.
        table: what it makes.
        kills: how many nodes die.
        seed: of which dies when.
        gpus: of each node, as Ray believes.
        most_s: seconds of work, at most, before the next kill.
    """
    rng, fire = random.Random(seed), NodeFire()
    with DyingNodes(seed, gpus) as nodes, tempfile.TemporaryDirectory(prefix="ufn-", dir="/tmp") as temporary:
        env = {**os.environ, "RAY_ADDRESS": nodes.address, "TMPDIR": temporary}
        for _ in range(3):
            fire.runs += 1
            log = Path(temporary, f"{fire.runs}.log")
            with log.open("wb") as file:
                driver = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, env=env)
                try:
                    _watch(driver, nodes, table, kills, rng, most_s, fire)
                finally:
                    driver.kill()
                    driver.wait()
            if driver.returncode == 0:
                return fire
            fire.said.append("\n".join(log.read_text(errors="replace").strip().splitlines()[-8:]))
    raise AssertionError(f"not done: {fire}")


def _watch(
    driver: subprocess.Popen,
    nodes: DyingNodes,
    table: Path,
    kills: int,
    rng: random.Random,
    most_s: float,
    fire: NodeFire,
) -> None:
    """Kill in a run what is to be killed; return when its driver has ended."""
    due, seen = 0.0, set()
    while driver.poll() is None:
        time.sleep(0.1)
        phase = "encode" if (table / "clips" / "manifest.json").exists() else "ingest"
        wanted = kills // 2 if phase == "ingest" else kills
        if len(fire.killed) >= wanted:
            continue
        committed = {path.name for path in (table if phase == "encode" else table / "clips").glob("parts/*")}
        if not due and committed - seen:
            seen |= committed
            due = time.monotonic() + rng.uniform(0, most_s)
        if due and time.monotonic() >= due:
            way = _WAYS[len(fire.killed) % len(_WAYS)]
            if lost := nodes.kill(way):
                fire.killed.append(f"{way} in {phase}")
                fire.lost_workers += lost
                nodes.join()
                due = 0.0
