"""Throughput of encoding beside the bound that its kernels allow, and beside other loops with the same VAE.

    python benchmarks/encode.py

The bound ratio is T_bound / T_wall. T_bound is (core seconds of decoding + core seconds of encoding) / cores, measured
in one process with one thread, with the functions of the pipeline (`pipelines.encode`) on its files. Everything else
counts as overhead of the pipeline: child processes, scheduling, float16, parquet, the ledger, and the caches that
decoders and networks take from each other. There are three VAEs, all of them AutoencoderKL: the smallest possible, one
as expensive as decoding, and the preset's.

The other contenders do the same work as their users would write it (see encode_peers.py), and their rows must be equal.
A contender whose package is missing is left out. Daft can lie in a folder of its own:

    pip install --no-deps --target /tmp/daft daft==0.7.26 && PYTHONPATH=/tmp/daft python benchmarks/encode.py

The source video is small (640 x 272), and the overhead per clip does not depend on the picture. `--enlarge 3` scales it
to 1920 x 816 and encodes it again:

    python benchmarks/encode.py --enlarge 3 --videos 8

Throughput is that of the difference between a long and a short corpus, so start-up does not count; it is reported by
itself. Contenders take turns. Kernels are timed before and after each run of the pipeline and averaged, because the
speed of virtual machines varies.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.encode_sides import EQUAL, NO_OP, REAL, Seconds
from tools.result_files import add_save_option, report, spread
from videogen.cli import parser, run_job
from videogen.errors import UserError
from videogen.stages import load_preset
from videogen.startup import KEEP_FREED_MEMORY

_PEERS = ("plain loop", "torch DataLoader", "Ray Data", "Daft")
_VIDEOS_A_CORE = 8
"""Of eight clips each: two batches of the pipeline."""
_SIDES = Path(__file__).with_name("encode_sides.py")
_TOLERANCE = 0.01
"""Largest difference of a float16 latent; another number of threads sums in another order."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = build_parser().parse_args(argv)
    if options.peers and REAL not in options.vaes:
        raise UserError(f"--peers are compared with the VAE {REAL!r}, which --vaes leaves out.")
    with tempfile.TemporaryDirectory(prefix="videogen-benchmark-", dir=options.folder) as folder:
        bench = _Bench(Path(folder), options)
        for repeat in range(options.repeats):
            bench.repeat(repeat)
        report("encode", bench.figures(), options)
        if options.peers:
            report("encode_peers", {"contenders": bench.contenders()}, options)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    arguments = parser(__doc__)
    arguments.add_argument(
        "--videos",
        type=int,
        default=_VIDEOS_A_CORE * (os.cpu_count() or 1),
        help="of the short corpus; the long one has twelve times as many; default: eight a core",
    )
    arguments.add_argument("--enlarge", type=int, default=1, choices=range(1, 5), help="times the real video's sides")
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--vaes", nargs="*", default=[NO_OP, EQUAL, REAL], choices=[NO_OP, EQUAL, REAL])
    arguments.add_argument(
        "--peers", nargs="*", default=list(_PEERS), choices=_PEERS, help="none: only the bound ratio"
    )
    arguments.add_argument("--folder", help="folder of corpora and tables; default: the folder of temporary files")
    add_save_option(arguments)
    return arguments


class _Bench:
    """State of a run of the benchmark: corpora, and the measurements so far."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self._folder = folder
        self._options = options
        self._cores = os.cpu_count() or 1
        prepare = {"do": "prepare", "folder": str(folder), "videos": options.videos, "enlarge": options.enlarge}
        self.prepared = _side(prepare)
        self.clips: list[int] = self.prepared["clips"]
        self._require_even_shares(options.videos)
        self.kernels: dict[str, list[Seconds]] = {name: [] for name in options.vaes}
        self.busy: dict[str, list[Seconds]] = {name: [] for name in options.vaes}
        self.ours: dict[str, list[list[float]]] = {name: [] for name in options.vaes}
        self.peers: dict[str, list[list[float]]] = {name: [] for name in options.peers}
        self.absent: dict[str, str] = {}
        self.differences: dict[str, float] = {}

    def _require_even_shares(self, num_videos: int) -> None:
        """Refuse a short corpus that leaves cores idle: the difference to the long one would understate the work."""
        from pipelines.encode.pipeline import CLIPS_PER_BATCH

        of_video = self.clips[0] // num_videos
        multiple = math.lcm(of_video, CLIPS_PER_BATCH * self._cores) // of_video
        if num_videos % multiple:
            raise UserError(
                f"--videos is {num_videos}, but {self._cores} cores share {of_video} clips a video in units of "
                f"{CLIPS_PER_BATCH} evenly only if it is a multiple of {multiple}."
            )

    def repeat(self, number: int) -> None:
        """Run every contender once on both corpora; time the kernels before and after each run of the pipeline."""
        vaes = self._options.vaes
        order: list[tuple[str, Callable[[str, int], list[float]]]] = [
            *((name, self._run_ours) for name in vaes),
            *((name, self._run_peer) for name in self._options.peers),
        ]
        timed = None
        # Every other round in reverse order, so that a change of the machine's speed favours no contender.
        for name, run in order if number % 2 == 0 else order[::-1]:
            if name in self.absent:
                continue
            before = (timed or self._time_kernels(number)) if name in vaes else None
            seconds = run(name, number)
            timed = None
            if seconds:
                (self.ours if name in vaes else self.peers)[name].append(seconds)
                _log(number, name, {"clips/s": self.rate(seconds), "start-up": self.start_up(seconds)})
            if before is not None:
                timed = self._time_kernels(number)
                self.kernels[name].append(_mean([before[0], timed[0]]))
                self.busy[name].append(_mean([before[1], timed[1]]))
        self._compare(number)
        for place in self._folder.glob(f"{number}-*"):
            shutil.rmtree(place)

    def _time_kernels(self, number: int) -> tuple[Seconds, Seconds]:
        """Return the core seconds per clip of one process alone, and of one process per core."""
        job = {"do": "kernels", "plan": self._plan(0), "vaes": {name: self._model(name) for name in self._options.vaes}}
        alone, busy = _mean(_sides([job])), _mean(_sides([job] * self._cores))
        _log(number, "kernels", alone)
        _log(number, "kernels on busy cores", busy)
        return alone, busy

    def rate(self, seconds: Sequence[float]) -> float:
        """Return clips a second from the seconds of the short and of the long corpus."""
        return (self.clips[1] - self.clips[0]) / (seconds[1] - seconds[0])

    def start_up(self, seconds: Sequence[float]) -> float:
        """Return the start-up time: what the short corpus took beyond its clips."""
        return seconds[0] - self.clips[0] / self.rate(seconds)

    def bounds(self, vae: str, kernels: Iterable[Seconds]) -> list[float]:
        """Return the clips per second that the kernels allow."""
        return [self._cores / (one["decode"] + one[vae]) for one in kernels]

    def _run_ours(self, vae: str, number: int) -> list[float]:
        outputs = self._outputs(vae, number)
        runs = [[self._clips_table(which), outputs[which]] for which in (0, 1)]
        seconds: list[float] = _side({"do": "ours", "model": self._model(vae), "runs": runs, "encoders": self._cores})
        return seconds

    def _run_peer(self, peer: str, number: int) -> list[float]:
        outputs = self._outputs(peer, number)
        runs = [[self._plan(which), outputs[which]] for which in (0, 1)]
        sizes = load_preset("tiny").latent_sizes
        job = {"peer": peer, "model": self._model(REAL), "runs": runs, "cores": self._cores, "sizes": sizes}
        command = [sys.executable, str(Path(__file__).with_name("encode_peers.py")), json.dumps(job)]
        answer = _ask([command], {})[0]
        if "absent" in answer:
            self.absent[peer] = answer["absent"]
            _log(number, peer, answer)
            return []
        seconds: list[float] = answer["seconds"]
        return seconds

    def _compare(self, number: int) -> None:
        """Raise if the rows of two contenders differ."""
        expected: dict[str, dict[str, np.ndarray]] = {}
        for name in [REAL, *self.peers]:
            output = Path(self._outputs(name, number)[1])
            if name in self.absent or not output.exists():
                continue
            rows = _rows(output / "shards" if name == REAL else output)
            expected = expected or rows
            if rows.keys() != expected.keys() or len(rows) != self.clips[1]:
                raise UserError(f"{name} gives {len(rows)} of {self.clips[1]} clips, or others: no ratio counts.")
            difference = max(
                float(np.abs(array.astype(np.float32) - rows[clip][field]).max())
                for clip, arrays in expected.items()
                for field, array in arrays.items()
            )
            self.differences[name] = max(difference, self.differences.get(name, 0.0))
            if difference > _TOLERANCE:
                raise UserError(f"{name} gives latents that differ by {difference}: no ratio counts.")

    def _outputs(self, name: str, number: int) -> list[str]:
        return [str(self._folder / f"{number}-{name.replace(' ', '-')}-{which}") for which in ("short", "long")]

    def _clips_table(self, which: int) -> str:
        return str(self._folder / f"clips-{which}")

    def _plan(self, which: int) -> str:
        return str(self._folder / f"plan-{which}.parquet")

    def _model(self, vae: str) -> str:
        return str(self._folder / "models" / vae)

    # --- figures -----------------------------------------------------------------------------------------------------

    def figures(self) -> dict[str, Any]:
        """Return the settings of the run, and the bound ratio with each VAE."""
        rows = []
        for vae, runs in self.ours.items():
            rates, kernels = [self.rate(run) for run in runs], self.kernels[vae]
            bounds, busy = self.bounds(vae, kernels), self.bounds(vae, self.busy[vae])
            row: dict[str, Any] = {"vae": vae, "widths": str(self.prepared["widths"][vae])}
            row |= {"decoding_core_ms_per_clip": spread([1000 * one["decode"] for one in kernels], 1)}
            row |= {"encoding_core_ms_per_clip": spread([1000 * one[vae] for one in kernels], 1)}
            row |= {"bound_clips_per_s": spread(bounds, 1), "pipeline_clips_per_s": spread(rates, 1)}
            row |= {"bound_ratio": _ratios(rates, bounds), "ratio_to_kernels_on_busy_cores": _ratios(rates, busy)}
            row |= {"start-up_s": spread([self.start_up(run) for run in runs], 1)}
            rows.append(row)
        settings = {"clips": f"{self.clips[0]} and {self.clips[1]}", "frames": self.prepared["frames"]}
        settings |= {"picture": self.prepared["picture"], "repeats": self._options.repeats}
        return {**settings, "load_average": round(os.getloadavg()[1], 1), "bound_ratio": rows}

    def contenders(self) -> list[dict[str, Any]]:
        """Return the throughput of every contender with the preset's VAE."""
        rows = []
        ours = [self.rate(run) for run in self.ours[REAL]]
        for name, runs in {"this pipeline": self.ours[REAL], **self.peers}.items():
            if name in self.absent:
                print(f"{name} is left out: {self.absent[name]}", file=sys.stderr)
                continue
            rates = [self.rate(run) for run in runs]
            row: dict[str, Any] = {"contender": name, "clips_per_s": spread(rates, 1)}
            row |= {"this_pipeline_over_it": _ratios(ours, rates)}
            row |= {"start-up_s": spread([self.start_up(run) for run in runs], 1)}
            row |= {"largest_difference_of_latents": self.differences[REAL if name == "this pipeline" else name]}
            rows.append(row)
        return rows


def _ratios(rates: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    return spread([rate / other for rate, other in zip(rates, others, strict=True)], 2)


def _log(number: int, name: str, said: Mapping[str, Any]) -> None:
    shown = {key: round(value, 4) if isinstance(value, float) else value for key, value in said.items()}
    print(f"repeat {number}: {name}: {shown}", file=sys.stderr, flush=True)


def _mean(several: Sequence[Seconds]) -> Seconds:
    return {name: statistics.mean(one[name] for one in several) for name in several[0]}


def _rows(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Return the latents of every clip in the parquet files of a folder."""
    found = {}
    for file in sorted(folder.rglob("*.parquet")):
        names = [name for name in pq.read_schema(file).names if name.startswith("latents_")]
        fields = [name for name in names if not name.endswith(("_shape", "_dtype"))]
        for row in pq.read_table(file, columns=["clip_id", *fields]).to_pylist():
            found[row["clip_id"]] = {name: np.frombuffer(row[name], np.float16) for name in fields}
    return found


# --- processes of their own -----------------------------------------------------------------------------------------


def _side(job: Mapping[str, Any]) -> Any:
    return _sides([job])[0]


def _sides(jobs: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Run jobs, each in a process of its own, side by side."""
    # As the pipeline's workers have it: a bound that is lower than it need be would flatter.
    as_workers = {"OMP_NUM_THREADS": "1", **KEEP_FREED_MEMORY} if jobs[0]["do"] == "kernels" else {}
    return _ask([[sys.executable, str(_SIDES), json.dumps(job)] for job in jobs], as_workers)


def _ask(commands: Sequence[Sequence[str]], env: Mapping[str, str]) -> list[Any]:
    with tempfile.TemporaryDirectory() as logs:
        running = []
        for number, command in enumerate(commands):
            with Path(logs, str(number)).open("w") as log:
                process = subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **env}
                )
            running.append(process)
        answers = [process.communicate()[0] for process in running]
        for number, process in enumerate(running):
            if process.returncode:
                log_tail = Path(logs, str(number)).read_text()[-3000:]
                raise RuntimeError(f"{commands[number]} failed:\n{log_tail}")
    return [json.loads(answer.splitlines()[-1]) for answer in answers]


if __name__ == "__main__":
    sys.exit(run_job(main))
