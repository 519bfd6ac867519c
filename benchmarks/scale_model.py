"""Model of the wall time and the cost of a corpus on a cluster; docs/explanation/scale.md explains it."""

import argparse
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Costs:
    """Measured and assumed costs of the work."""

    batch_clips: int
    """Clips of one batch of the encode pipeline, which is one task of Ray."""
    video_s: float
    """Seconds of video that ingest analyses per clip."""
    analyse_s: float
    """Core seconds per second of video."""
    decode_s: float
    """Core seconds per clip."""
    encode_s: float
    """GPU seconds per clip."""
    clip_bytes: float
    """Bytes of a clip in the table of latents."""
    ledger_s: float
    """Seconds of the driver to plan and publish 10^6 items."""
    driver_s: float
    """Seconds of the driver per batch that passes through Ray Data."""
    eta: float
    """Bound ratio: the share of core and GPU time that does useful work."""


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


def makespan(num_batches: int, decode_s: float, encode_s: float, decoders: int, encoders: int) -> tuple[float, str]:
    """Return the seconds of a two-stage pipeline of batches, and the stage that bounds them.

    The slower stage works without a pause; the other adds its first or its last batch.
    """
    by_decoding = decode_s * max(1, num_batches / decoders) + encode_s
    by_encoding = decode_s + encode_s * max(1, num_batches / encoders)
    return (by_decoding, "decoding") if by_decoding > by_encoding else (by_encoding, "encoding")


@dataclass(frozen=True)
class Prediction:
    """Predicted time and cost of a corpus on a cluster."""

    ingest_h: float
    encode_h: float
    ledger_h: float
    bound_by: str
    """Bottleneck of encoding: "decoding", "encoding" or "driver"."""
    core_h: float
    gpu_h: float
    terabytes: float
    dollars: float


def predict(costs: Costs, shape: Shape, num_clips: int, prices: argparse.Namespace) -> Prediction:
    """Return the prediction for a corpus. Ingest is paid on cores alone, encoding on cores and GPUs."""
    num_batches = math.ceil(num_clips / costs.batch_clips)
    cores = shape.nodes * shape.cores
    ingest_s = max(num_clips * costs.video_s * costs.analyse_s / cores / costs.eta, num_batches * costs.driver_s)
    work_s, bound_by = makespan(
        num_batches,
        costs.batch_clips * costs.decode_s / costs.eta,
        costs.batch_clips * costs.encode_s / costs.eta,
        shape.decoders,
        shape.encoders,
    )
    encode_s = max(work_s, num_batches * costs.driver_s)
    bound_by = bound_by if work_s >= encode_s else "driver"
    # Both tables have a ledger.
    ledger_s = 2 * costs.ledger_s * num_clips / 1e6
    total_h = (ingest_s + encode_s + ledger_s) / 3600
    gpu_h = shape.encoders * encode_s / 3600
    terabytes = num_clips * costs.clip_bytes / 1e12
    dollars = total_h * cores * prices.core_usd + gpu_h * prices.gpu_usd + 1000 * terabytes * prices.gigabyte_usd
    hours = (ingest_s / 3600, encode_s / 3600, ledger_s / 3600)
    return Prediction(*hours, bound_by, total_h * cores, gpu_h, terabytes, dollars)
