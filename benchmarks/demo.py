"""Quality of the models that `make demo` trains, and duration of each of its steps, from the folder of a finished run.

make demo && python benchmarks/demo.py --save
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tools.result_files import add_save_option, report
from videogen import storage
from videogen.cli import parser, run_job

_METRICS = (
    *("colour_accuracy", "shape_accuracy", "direction_accuracy", "all_correct", "motion_smoothness"),
    *("decoder_psnr_db", "image_decoder_psnr_db", "interpolation_psnr_db", "blend_psnr_db"),
    *("num_prompts", "num_failed"),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Report one run."""
    options = build_parser().parse_args(argv)
    run = storage.absolute(options.run)
    evaluation = storage.read_json(storage.join(run, "evaluation.json"))
    timings = storage.read_json(storage.join(run, "timings.json"))
    report("demo", figures(evaluation, timings), options)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    arguments = parser(__doc__)
    arguments.add_argument("--run", default="runs/demo", metavar="URI", help="output of the demo; default: runs/demo")
    add_save_option(arguments)
    return arguments


def figures(evaluation: Mapping[str, Any], timings: Mapping[str, float]) -> dict[str, Any]:
    """Return the figures of a run from its `evaluation.json` and `timings.json`."""
    speeds = [{"asked_for": name, **values} for name, values in evaluation["speeds"].items()]
    steps = [{"step": name, "seconds": seconds} for name, seconds in timings.items()]
    metrics = {name: evaluation[name] for name in _METRICS}
    return {**metrics, "whole_demo_s": round(sum(timings.values())), "pixels_moved": speeds, "steps": steps}


if __name__ == "__main__":
    sys.exit(run_job(main))
