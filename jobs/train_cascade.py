r"""Train a cascade from a corpus of videos, or from latents, into a model folder.

    python jobs/train_cascade.py                                     # the complete tiny run, into runs/
    python jobs/train_cascade.py --data s3://bucket/latents --output s3://bucket/model --preset small
    python jobs/train_cascade.py --data runs/data --output runs/model --stages base,decode --set base.training.steps=500
    python jobs/train_cascade.py --preset paper --dry-run            # steps, sizes and memory

A corpus is a folder of videos with captions.parquet, captions.csv or captions.jsonl, or a folder with the sub-folders
captioned/ and unlabeled/. The same command skips finished steps and continues interrupted ones.
"""

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence

from pipelines.cluster.progress import Progress
from pipelines.runner.preflight import require_lasting
from pipelines.train.cascade import Cascade, CascadeOptions
from pipelines.train.dag import Outcome
from pipelines.train.dry_run import describe, describe_training
from videogen.cli import EXIT_FAILED, add_preset_options, parser, run_job
from videogen.data.synthetic import CorpusSize
from videogen.stages import load_preset


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the job's options."""
    arguments = parser(__doc__)
    arguments.add_argument(
        "--data", metavar="URI", help="videos or latents; default: the demonstration corpus, made first"
    )
    arguments.add_argument("--output", default="runs/model", metavar="URI", help="model folder (default: runs/model)")
    arguments.add_argument("--latents", metavar="URI", help="latents of a corpus; default: latents/ beside the output")
    arguments.add_argument("--stages", metavar="A,B", help="train only these stages, and make what they depend on")
    arguments.add_argument("--init-from", metavar="URI", help="Stable-Diffusion-layout folder, URI or hub id")
    arguments.add_argument(
        "--clips",
        type=int,
        default=CorpusSize().captioned,
        metavar="N",
        help="captioned clips of the demonstration corpus",
    )
    arguments.add_argument("--dry-run", action="store_true", help="print the steps, sizes and memory, and stop")
    add_preset_options(arguments)
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job."""
    options = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    # `Cascade` checks that the output can be written.
    for option in ("output", "data", "latents"):
        require_lasting(getattr(options, option), f"--{option}")
    config = load_preset(options.preset, options.overrides)
    stages = None if options.stages is None else tuple(name.strip() for name in options.stages.split(","))
    size = CorpusSize(captioned=options.clips)
    wanted = CascadeOptions(options.output, options.data, options.latents, stages, options.init_from, size)
    with Progress() as progress:
        cascade = Cascade(config, wanted, progress)
        print(f"Preset {config.name} into {cascade.output}\n\n{describe(cascade)}\n", flush=True)
        if options.dry_run:
            print(describe_training(cascade))
            return
        outcome = cascade.run()
    _report(outcome, cascade.output, sys.argv[1:] if argv is None else argv)


def _report(outcome: Outcome, output: str, argv: Sequence[str]) -> None:
    """Print the outcome; exit with status 1 if a step failed."""
    if not outcome.failed:
        print(f"{output}: {len(outcome.finished)} steps done now, {len(outcome.skipped)} done before")
        return
    for step, cause in outcome.failed.items():
        print(f"error: step {step!r} failed: {cause}", file=sys.stderr)
    for step, culprit in outcome.blocked.items():
        print(f"       step {step!r} was not started: it needs {culprit!r}", file=sys.stderr)
    command = shlex.join(["python", "jobs/train_cascade.py", *argv])
    print(f"Fix the cause, then run the same command to continue:\n  {command}", file=sys.stderr)
    raise SystemExit(EXIT_FAILED)


if __name__ == "__main__":
    sys.exit(run_job(main))
