"""Simulated cluster of benchmarks/scale.py: Ray with several nodes on this machine, whose tasks sleep.

The graph, its sizes (`shares`) and Ray Data are the product's. One worker process stands for several cores that work on
as many batches side by side, so that hundreds of cores fit.
"""

import argparse
import logging
import os
import random
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.scale_model import Costs, Shape, makespan

if TYPE_CHECKING:
    import pyarrow as pa

_WORKER_BYTES = 1 << 30
_JITTER = 0.3
"""Largest deviation of a batch's duration from the mean, as a share of it; uniform."""
_EMPTY_BATCHES = (40, 240)


@dataclass(frozen=True)
class Simulated:
    """One cluster that was simulated."""

    shape: Shape
    num_batches: int
    bound_by: str
    start_up_s: float
    driver_s: float
    predicted_s: float
    simulated_s: float

    @property
    def error(self) -> float:
        """Error of the prediction, relative to the simulated time."""
        return self.predicted_s / self.simulated_s - 1


def simulate_clusters(shapes: Sequence[Shape], costs: Costs, options: argparse.Namespace) -> list[Simulated]:
    """Simulate encoding on each cluster."""
    found = []
    for shape in shapes:
        with _Cluster(shape, options.cores_a_process):
            found.append(_simulate(shape, costs, options))
        print(f"{shape}: {found[-1]}", file=sys.stderr)
    return found


class _Cluster:
    """Ray with several nodes on this machine; the driver's node has no cores, as a head node should not."""

    def __init__(self, shape: Shape, share: int) -> None:
        self._shape = shape
        self._share = share
        self._cluster: Any = None

    def __enter__(self) -> None:
        # Ray reads these when it is imported; strangers have no token.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if os.environ.setdefault("RAY_AUTH_MODE", "token") == "token":
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        import ray
        import ray.data
        from ray.cluster_utils import Cluster

        every: dict[str, Any] = {"object_store_memory": 100 << 20}
        head = {"num_cpus": 0, "include_dashboard": False, **every}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        cpus, gpus = self._shape.cores // self._share, self._shape.gpus // self._share
        for _ in range(self._shape.nodes):
            self._cluster.add_node(num_cpus=cpus, num_gpus=gpus, memory=cpus * (4 << 30), **every)
        ray.init(address=self._cluster.address, log_to_driver=False, logging_level="error")
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False

    def __exit__(self, *_: object) -> None:
        import ray

        ray.shutdown()
        self._cluster.shutdown()


def _simulate(shape: Shape, costs: Costs, options: argparse.Namespace) -> Simulated:
    """Run empty batches, which measures Ray's own cost, and then batches that sleep."""
    share = options.cores_a_process
    decode_s, encode_s = costs.batch_clips * costs.decode_s, costs.batch_clips * costs.encode_s
    decoders, encoders = shape.decoders // share, shape.encoders // share
    # Starting the worker processes of hundreds of cores on these few is none of the cluster's costs.
    _run(_EMPTY_BATCHES[0], 0.0, 0.0)
    few, many = (_run(count, 0.0, 0.0) for count in _EMPTY_BATCHES)
    driver_s = max(0.0, (many - few) / (_EMPTY_BATCHES[1] - _EMPTY_BATCHES[0]))
    start_up_s = few - driver_s * _EMPTY_BATCHES[0]
    slower = max(decode_s / decoders, encode_s / encoders)
    num_batches = max(4 * encoders, round(options.seconds / slower))
    work_s, bound_by = makespan(num_batches, decode_s, encode_s, decoders, encoders)
    predicted_s = start_up_s + max(work_s, num_batches * driver_s)
    simulated_s = _run(num_batches, decode_s, encode_s)
    return Simulated(shape, num_batches * share, bound_by, start_up_s, driver_s, predicted_s, simulated_s)


def _run(num_batches: int, decode_s: float, encode_s: float) -> float:
    """Return the seconds of the product's graph, with the product's sizes, over batches that sleep."""
    import ray.data

    from pipelines.cluster.pools import shares, two_steps

    started = time.perf_counter()
    batches = ray.data.from_items([{"batch": number} for number in range(num_batches)], override_num_blocks=num_batches)
    share = shares(num_batches, _WORKER_BYTES)
    graph, _ = two_steps(batches, _sleep_decoding, _SleepEncoding, (decode_s, encode_s), share)
    done = sum(1 for _ in graph.iter_rows())
    if done != num_batches:
        raise RuntimeError(f"{done} of {num_batches} batches came through")
    return time.perf_counter() - started


def _sleep_decoding(table: "pa.Table", seconds: tuple[float, float]) -> "pa.Table":
    _sleep(table, seconds[0], "decode")
    return table


class _SleepEncoding:
    """The actor of the simulation."""

    def __init__(self, seconds: tuple[float, float]) -> None:
        self._seconds = seconds[1]

    def __call__(self, table: "pa.Table") -> "pa.Table":
        """Map one batch."""
        _sleep(table, self._seconds, "encode")
        return table


def _sleep(table: "pa.Table", seconds: float, what: str) -> None:
    jitter = random.Random(f"{what} {table['batch'][0]}").uniform(-_JITTER, _JITTER)
    time.sleep(seconds * (1 + jitter))
