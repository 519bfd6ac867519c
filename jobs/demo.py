"""Run the complete demo: corpus, latents, six trained models, generated videos, evaluation and report.

    python jobs/demo.py

Runs the other jobs with the `tiny` preset and writes runs/demo/: data, latents, model, generated, evaluation.json and
report/index.html. The same command skips finished steps and continues an interrupted run.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from importlib import import_module

from pipelines.runner.preflight import require_output
from videogen import storage
from videogen.cli import parser, run_job


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the job's options."""
    arguments = parser(__doc__)
    arguments.add_argument("--output", default="runs/demo", metavar="URI", help="default: runs/demo")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job."""
    options = build_parser().parse_args(argv)
    root = storage.absolute(options.output)
    require_output(root)
    data, latents, model, generated = (storage.join(root, name) for name in ("data", "latents", "model", "generated"))
    prompts = storage.join(data, "held_out", "prompts.parquet")
    evaluation, report = storage.join(root, "evaluation.json"), storage.join(root, "report")
    timings = storage.join(root, "timings.json")
    steps = [
        ("make_corpus", "--output", data),
        ("train_cascade", "--data", data, "--latents", latents, "--output", model),
        ("generate", "--model", model, "--prompts", prompts, "--output", generated, "--save-intermediates"),
        ("evaluate", "--model", model, "--data", data, "--generated", generated, "--output", evaluation),
        (
            *("report", "--model", model, "--generated", generated, "--evaluation", evaluation),
            *("--timings", timings, "--output", report),
        ),
    ]
    started = time.perf_counter()
    for number, (job, *words) in enumerate(steps, start=1):
        print(f"\n[{number}/{len(steps)}] python jobs/{job}.py {' '.join(words)}", flush=True)
        _run(job, words, timings)
    print(f"\nDone in {time.perf_counter() - started:.0f} s.")
    print(f"  videos  {storage.join(generated, 'videos')}")
    print(f"  report  {storage.join(report, 'index.html')}")


def _run(job: str, words: Sequence[str], timings: str) -> None:
    """Run a job's `main` and record its duration.

    An interrupted and continued step counts all its runs; a step that is up to date keeps its earlier duration.
    """
    seconds: dict[str, float] = storage.read_json(timings) if storage.exists(timings) else {}
    unfinished = f"{job} (unfinished)"
    before, started = seconds.pop(unfinished, 0.0), time.perf_counter()
    finished = False
    try:
        import_module(f"jobs.{job}").main(words)
        finished = True
    finally:
        elapsed = before + time.perf_counter() - started
        if finished:
            seconds[job] = round(max(seconds.get(job, 0.0), elapsed), 1)
        else:
            seconds[unfinished] = round(elapsed, 1)
        storage.write_json(timings, seconds)


if __name__ == "__main__":
    sys.exit(run_job(main))
