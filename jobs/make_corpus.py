"""Make a demonstration corpus: captioned clips of moving shapes, and real clips without captions.

    python jobs/make_corpus.py --output runs/data

Writes OUTPUT/captioned (mp4 files and captions.parquet), OUTPUT/unlabeled, OUTPUT/held_out/captioned,
OUTPUT/held_out/unlabeled and OUTPUT/held_out/prompts.parquet. Held-out data appears nowhere else: complete combinations
of colour, shape and direction, and one animated film among the real clips. Existing files are kept.
"""

import argparse
import sys
from collections.abc import Sequence

from pipelines.cluster.progress import Progress
from pipelines.runner.preflight import require_output
from pipelines.train.demo_corpus import make_demonstration_corpus
from videogen import storage
from videogen.cli import add_preset_options, parser, run_job
from videogen.data.synthetic import CorpusSize
from videogen.stages import load_preset


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the job's options."""
    arguments = parser(__doc__)
    arguments.add_argument("--output", default="runs/data", metavar="URI", help="default: runs/data")
    arguments.add_argument(
        "--clips", type=int, default=CorpusSize().captioned, metavar="N", help="number of captioned clips"
    )
    arguments.add_argument("--seed", type=int, default=0, help="seed of backgrounds, positions and sizes; default: 0")
    add_preset_options(arguments)
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job."""
    options = build_parser().parse_args(argv)
    size = CorpusSize(captioned=options.clips)
    config = load_preset(options.preset, options.overrides)
    require_output(options.output)
    output = storage.absolute(options.output)
    with Progress() as progress:
        counts = make_demonstration_corpus(output, config, progress, size, options.seed)
    print(f"{output}: " + ", ".join(f"{number} {name}" for name, number in counts.items()))


if __name__ == "__main__":
    sys.exit(run_job(main))
