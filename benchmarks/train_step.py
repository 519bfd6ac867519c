"""Cost of a training step through the platform beside a step of a bare PyTorch loop with the same losses.

    python benchmarks/train_step.py

The platform's side is `train_stage`: Ray Train worker, DeepSpeed engine, read-ahead from the table of latents, metrics
in JSONL and TensorBoard; checkpoints are not counted. The bare side is a plain loop in a process of its own over
batches that are in memory before the clock starts. Both take the same steps on the same clips with the same noise and
threads, and the run fails unless their losses agree. Runs alternate; the ratio is the median over pairs.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.result_files import add_save_option, report, spread
from videogen.cli import parser, run_job
from videogen.errors import UserError
from videogen.stages import CascadeConfig, apply_overrides, config_from_dict, load_preset
from videogen.startup import KEEP_FREED_MEMORY

_RAY_NICENESS = 15
"""Niceness of Ray's workers, which the bare loop must have too."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark; with --bare, only the bare loop."""
    options = build_parser().parse_args(argv)
    if options.bare:
        print(json.dumps(_bare_loop(options.bare)))
        return
    config = _config(options)
    with tempfile.TemporaryDirectory(prefix="videogen-benchmark-") as name:
        folder = Path(name)
        _make_model_and_latents(folder, options.clips, config)
        bare_ms, platform_ms, difference = [], [], 0.0
        for pair in range(options.pairs):
            platform, losses = _platform(folder, config, options.stage, pair)
            bare, expected = _bare(folder, config, options.stage)
            difference = max(difference, *(abs(losses[step] - expected[step]) for step in expected))
            bare_ms.append(1000 * bare)
            platform_ms.append(1000 * platform)
            print(f"pair {pair}: bare {bare_ms[-1]:.1f} ms, platform {platform_ms[-1]:.1f} ms", file=sys.stderr)
            if not math.isclose(difference, 0, abs_tol=options.tolerance):
                raise UserError(f"Losses differ by {difference}: the two sides do not train the same, no ratio counts.")
    ratios = [platform / bare for platform, bare in zip(platform_ms, bare_ms, strict=True)]
    training = config.training_of(options.stage)
    row = {
        "stage": f"{options.stage} ({config.name})",
        "batch": training.batch_size,
        "threads": int(training.cpus_per_worker),
        "bare_step_ms": round(statistics.median(bare_ms), 1),
        "platform_step_ms": round(statistics.median(platform_ms), 1),
        "ratio": spread(ratios),
        "largest_difference_of_losses": difference,
    }
    report("train_step", {"steps": [row]}, options)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    arguments = parser(__doc__)
    arguments.add_argument("--stage", default="base")
    arguments.add_argument("--steps", type=int, default=40)
    arguments.add_argument("--pairs", type=int, default=5)
    arguments.add_argument("--clips", type=int, default=64, help="clips in the table of latents")
    arguments.add_argument("--tolerance", type=float, default=1e-5, help="largest difference of losses")
    arguments.add_argument("--bare", metavar="FILE", help=argparse.SUPPRESS)
    add_save_option(arguments)
    return arguments


def _config(options: argparse.Namespace) -> CascadeConfig:
    settings = [f"steps={options.steps}", "warmup_steps=2", "cpus_per_worker=1", "log_every=10"]
    return apply_overrides(load_preset("tiny"), [f"{options.stage}.training.{setting}" for setting in settings])


def _make_model_and_latents(folder: Path, num_clips: int, config: CascadeConfig) -> None:
    from pipelines.encode.pipeline import encode
    from videogen.data.synthetic import CorpusSize, make_corpus
    from videogen.pipeline import save_random

    make_corpus(str(folder / "data"), config, CorpusSize(captioned=num_clips, held_out=1, prompts=1))
    save_random(str(folder / "model"), config)
    encode(str(folder / "data" / "captioned"), str(folder / "latents"), config, str(folder / "model" / "autoencoder"))


def _platform(folder: Path, config: CascadeConfig, stage: str, pair: int) -> tuple[float, dict[int, float]]:
    """Return seconds a step and the logged losses of one run through the platform."""
    from pipelines.train.stage import train_stage

    # A folder of its own: in the first one's folder the second run would find a checkpoint and have nothing to do.
    output = folder / f"run-{pair}"
    for name in ("autoencoder", "tokenizer", "text_encoder"):
        (output / name).parent.mkdir(exist_ok=True)
        (output / name).symlink_to(folder / "model" / name)
    record = train_stage(config, stage, str(folder / "latents"), str(output))
    lines = (output / "training" / stage / "metrics.jsonl").read_text().splitlines()
    losses = {line["step"]: line["loss"] for line in map(json.loads, lines)}
    return record.details["seconds"]["train"] / record.details["steps"], losses


def _bare(folder: Path, config: CascadeConfig, stage: str) -> tuple[float, dict[int, float]]:
    """Return seconds a step and losses of the bare loop: a new process, one thread, the platform's malloc settings."""
    job = folder / "bare.json"
    job.write_text(json.dumps({"config": config.model_dump(mode="json"), "stage": stage, "folder": str(folder)}))
    env = {**os.environ, **KEEP_FREED_MEMORY, "OMP_NUM_THREADS": "1"}
    command = ["nice", "-n", str(_RAY_NICENESS), sys.executable, __file__, "--bare", str(job)]
    output = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    result = json.loads(output.splitlines()[-1])
    return result["seconds"], {int(step): loss for step, loss in result["losses"].items()}


def _bare_loop(job_file: str) -> dict[str, Any]:
    """Train without the platform; losses are means over the steps since the last one that was logged."""
    import torch

    from videogen.data.datasets.latents_table import LatentsTable
    from videogen.stages import build_objective
    from videogen.training.ema import decay_at
    from videogen.training.loader import sample_index
    from videogen.training.loop import noise_generator
    from videogen.training.schedule import learning_rate

    job = json.loads(Path(job_file).read_text())
    config, folder = config_from_dict(job["config"]), Path(job["folder"])
    training = config.training_of(job["stage"])
    torch.set_num_threads(1)
    objective = build_objective(job["stage"], config, str(folder / "model")).train()
    table = LatentsTable.open(str(folder / "latents"))
    batches = []
    for step in range(training.steps):
        counters = range(step * training.batch_size, (step + 1) * training.batch_size)
        rows = [table.row(sample_index(counter, config.seed, len(table)), objective.fields) for counter in counters]
        batches.append(objective.collate(rows))
    weights = [weight for weight in objective.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        weights, lr=training.learning_rate, betas=training.betas, weight_decay=training.weight_decay, fused=True
    )
    averages: list[torch.Tensor] = []
    losses, since = {}, []
    started = time.perf_counter()
    for step, batch in enumerate(batches):
        samples = step * training.batch_size
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(samples, training)
        loss, _ = objective(batch, noise_generator(config.seed, samples))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, training.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        now = [weight.detach() for weight in weights]
        if not averages:
            averages = [weight.clone() for weight in now]
        else:
            torch._foreach_lerp_(averages, now, 1 - decay_at(step + 1, training.ema_decay))
        since.append(loss.item())
        if step == 0 or (step + 1) % training.log_every == 0:
            losses[step + 1], since = statistics.fmean(since), []
    return {"seconds": (time.perf_counter() - started) / training.steps, "losses": losses}


if __name__ == "__main__":
    sys.exit(run_job(main))
