r"""Train a cascade: from a corpus of videos, or from latents, to a model folder.

    python jobs/train_cascade.py                                     # the whole tiny run, into runs/
    python jobs/train_cascade.py --data s3://bucket/latents --output s3://bucket/model --preset small
    python jobs/train_cascade.py --data runs/data --output runs/model --stages base,decode --set base.training.steps=500
    python jobs/train_cascade.py --preset paper --dry-run            # what would be done, sizes, memory

A corpus is a folder of videos (captions in captions.parquet beside them), or one with the parts captioned/ and
unlabeled/. Finished steps are skipped and interrupted ones continued: the same command again is always safe.
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
    arguments.add_argument("--data", metavar="URI", help="videos or latents; default: a corpus that is made first")
    arguments.add_argument("--output", default="runs/model", metavar="URI", help="model folder (default: runs/model)")
    arguments.add_argument("--latents", metavar="URI", help="latents of a corpus; default: latents/ beside the output")
    arguments.add_argument("--stages", metavar="A,B", help="train only these, and make what they need")
    arguments.add_argument("--init-from", metavar="URI", help="Stable-Diffusion-layout folder, URI or hub id")
    arguments.add_argument(
        "--clips",
        type=int,
        default=CorpusSize().captioned,
        metavar="N",
        help="captioned clips of a corpus that is made",
    )
    arguments.add_argument("--dry-run", action="store_true", help="say what would be done, and stop")
    add_preset_options(arguments)
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job."""
    options = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    # That the output can be written is asked by `Cascade`, which knows what else must hold of it.
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
    """Say how it has ended; with a failed step the exit status is 1."""
    if not outcome.failed:
        print(f"{output}: {len(outcome.finished)} steps done now, {len(outcome.skipped)} done before")
        return
    for step, cause in outcome.failed.items():
        print(f"error: step {step!r} failed: {cause}", file=sys.stderr)
    for step, culprit in outcome.blocked.items():
        print(f"       step {step!r} was not begun: it needs {culprit!r}", file=sys.stderr)
    command = shlex.join(["python", "jobs/train_cascade.py", *argv])
    print(f"cure: remove the cause, then run this again, it continues where it stopped:\n  {command}", file=sys.stderr)
    raise SystemExit(EXIT_FAILED)


if __name__ == "__main__":
    sys.exit(run_job(main))
