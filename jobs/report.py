r"""Write the report of a trained cascade: one self-contained page with videos, loss curves and tables.

    python jobs/report.py --model runs/demo/model --generated runs/demo/generated \
        --evaluation runs/demo/evaluation.json --output runs/demo/report

GENERATED is an output of jobs/generate.py; with --save-intermediates the page also shows the output of every stage.
Writes OUTPUT/index.html, which needs no other file and no network. The same command has no effect unless one of its
sources has changed.
"""

import argparse
import sys
from collections.abc import Sequence

from pipelines.cluster.progress import Progress
from pipelines.generate.fingerprint import fingerprint, model_fingerprint
from pipelines.generate.manifest import MANIFEST_NAME, read_manifest
from pipelines.generate.model import read_config
from pipelines.runner.preflight import require_output
from videogen import storage
from videogen.cli import parser, run_job
from videogen.reporting.cascade.page import ReportSources, write_report
from videogen.reporting.page import made_from as made_from_of


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the job's options."""
    arguments = parser(__doc__)
    arguments.add_argument("--model", required=True, metavar="URI", help="model folder")
    arguments.add_argument("--generated", required=True, metavar="URI", help="output of jobs/generate.py")
    arguments.add_argument("--evaluation", required=True, metavar="URI", help="evaluation.json of jobs/evaluate.py")
    arguments.add_argument("--output", required=True, metavar="URI", help="folder of index.html")
    arguments.add_argument(
        "--timings", metavar="URI", help="JSON object with the seconds of each step, shown as a table"
    )
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job."""
    options = build_parser().parse_args(argv)
    require_output(options.output)
    model, generated = storage.absolute(options.model), storage.absolute(options.generated)
    config = read_config(model)
    storage.require_readable(options.evaluation, "Evaluation")
    storage.require_readable(storage.join(generated, MANIFEST_NAME), "Manifest")
    if options.timings:
        storage.require_readable(options.timings, "Timings")
    training = storage.join(model, "training")
    inputs = [options.evaluation, generated, training]
    made_from = fingerprint(*inputs, settings=[model_fingerprint(model)])
    output = storage.absolute(options.output)
    uri = storage.join(output, "index.html")
    if storage.exists(uri) and made_from_of(storage.read_text(uri)) == made_from:
        print(f"{uri}: up to date")
        return
    sources = ReportSources(
        made_from=made_from,
        model=model,
        generated=generated,
        evaluation=storage.read_json(options.evaluation),
        videos=read_manifest(generated),
        timings=storage.read_json(options.timings) if options.timings else {},
    )
    with Progress() as progress, progress.task("report", total=len(sources.videos), unit="videos") as task:
        write_report(uri, config, sources, task.advance)
    print(uri)


if __name__ == "__main__":
    sys.exit(run_job(main))
