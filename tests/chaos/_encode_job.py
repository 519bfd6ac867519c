"""Encoding job with small batches of work items, run as a process of its own so that it can be killed."""

import argparse
import sys
from collections.abc import Sequence

from pipelines.encode import pipeline as encode_pipeline
from pipelines.encode.plan import EncodeOptions
from pipelines.ingest import pipeline as ingest_pipeline
from pipelines.runner.run import RunOptions
from videogen.cli import run_job
from videogen.data.datasets.clips_schema import IngestSpec
from videogen.stages import load_preset

SPEC = IngestSpec(num_frames=15, fps=16, hashes=True, thumbnails=True)


def command(
    input_uri: object,
    output_uri: object,
    model: object,
    clips: int = 32,
    videos: int = 32,
    limit_s: float = 5.0,
    max_failure_rate: float = 1.0,
    *flags: str,
) -> list[str]:
    """Return the command line of this job; `clips` and `videos` are the sizes of a batch of work items."""
    words = ["-m", "tests.chaos._encode_job", str(input_uri), str(output_uri), str(model)]
    options = {"clips": clips, "videos": videos, "limit-s": limit_s, "max-failure-rate": max_failure_rate}
    return [sys.executable, *words, *(f"--{name}={value}" for name, value in options.items()), *flags]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job."""
    arguments = argparse.ArgumentParser(description=__doc__)
    for name in ("input_uri", "output_uri", "model"):
        arguments.add_argument(name)
    arguments.add_argument("--clips", type=int)
    arguments.add_argument("--videos", type=int)
    arguments.add_argument("--limit-s", type=float)
    arguments.add_argument("--max-failure-rate", type=float)
    arguments.add_argument("--ingest-first", action="store_true", help="write OUTPUT/clips, then OUTPUT/latents")
    options = arguments.parse_args(argv)
    encode_pipeline.CLIPS_PER_BATCH = options.clips
    ingest_pipeline.VIDEOS_PER_BATCH = options.videos
    source, table = options.input_uri, options.output_uri
    if options.ingest_first:
        source, table = f"{options.output_uri}/clips", f"{options.output_uri}/latents"
        ingest_pipeline.ingest(options.input_uri, source, ingest_pipeline.IngestOptions(SPEC))
    run = RunOptions(max_failure_rate=options.max_failure_rate, limit_s=options.limit_s)
    encode_pipeline.encode(source, table, load_preset("tiny"), options.model, options=EncodeOptions(run=run))


if __name__ == "__main__":
    sys.exit(run_job(main))
