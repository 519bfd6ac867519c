r"""Generate a video for every prompt of a parquet table.

    python jobs/generate.py --model runs/demo/model --prompts prompts.parquet --output runs/videos
    python jobs/generate.py --model s3://bucket/model --prompts s3://bucket/prompts --output s3://bucket/videos \
        --set base.sampling.num_inference_steps=8

Columns of the table: `prompt`; optional `id`, `seed`, `negative_prompt` and `reference_image` (bytes or URI). Writes
OUTPUT/videos/<id>.mp4 and OUTPUT/manifest.parquet. The manifest has the reason of every failed row; other rows
are not affected. The same command generates only the missing videos.
"""

import argparse
import sys
from collections.abc import Sequence

from pipelines.generate.pipeline import GenerateOptions, generate
from pipelines.runner.preflight import require_output
from videogen.cli import EXIT_FAILED, add_set_option, parser, run_job
from videogen.errors import UserError


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the job's options."""
    arguments = parser(__doc__)
    arguments.add_argument("--model", required=True, metavar="URI", help="model folder")
    arguments.add_argument("--prompts", required=True, metavar="URI", help="parquet file, or a folder of them")
    arguments.add_argument("--output", required=True, metavar="URI", help="folder for videos and manifest")
    arguments.add_argument("--batch-size", type=int, default=4, metavar="N", help="prompts per batch of a stage")
    arguments.add_argument("--workers", type=int, default=1, metavar="N", help="actors per stage")
    arguments.add_argument("--gpus", type=float, default=0, metavar="N", help="GPUs per actor; 0 runs on CPUs")
    arguments.add_argument(
        "--save-intermediates",
        action="store_true",
        help="also write OUTPUT/intermediates/<id>.safetensors: reference image and the latents of every stage",
    )
    add_set_option(arguments)
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job."""
    options = build_parser().parse_args(argv)
    for name in ("batch_size", "workers"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(options, name)}, but it must be at least 1.")
    if options.gpus < 0:
        raise UserError(f"--gpus is {options.gpus}, but it must be 0 (CPUs) or more.")
    require_output(options.output)
    result = generate(
        options.model,
        options.prompts,
        options.output,
        GenerateOptions(
            overrides=tuple(options.overrides),
            batch_size=options.batch_size,
            workers=options.workers,
            gpus_per_worker=options.gpus,
            save_intermediates=options.save_intermediates,
        ),
    )
    made = len(result.rows) - result.num_skipped - result.num_failed
    print(
        f"{result.manifest_uri}: {made} videos now, {result.num_skipped} before, {result.num_failed} failed, "
        f"{result.seconds:.0f} s"
    )
    if result.num_failed == len(result.rows):
        print(f"error: no row gave a video; the first says: {result.rows[0]['error']}", file=sys.stderr)
        raise SystemExit(EXIT_FAILED)


if __name__ == "__main__":
    sys.exit(run_job(main))
