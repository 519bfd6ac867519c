"""Model of the wall time and the cost of a corpus on a cluster; docs/explanation/scale.md explains it."""

import argparse
import math
from dataclasses import dataclass


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
