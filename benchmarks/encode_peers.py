"""Contenders of encode.py: the work of the encode pipeline as users of other tools would write it.

encode.py runs this file, one contender per process. Each reads the same plan (a row a video: source, clip ids, frame
numbers), decodes with decord, resizes with Pillow, calls the same VAE with the same batches of frames, and writes
float16 posteriors as parquet. None isolates the decoder, resumes after a kill, or records the outcome of each clip.
Each has the settings that were fastest on two cores.
"""

import importlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

_FACTOR = 4
"""Pixels per latent pixel of the preset, each side."""
_CLIPS_AT_ONCE = 32

Video = dict[str, Any]
"""A row of the plan."""


@dataclass(frozen=True)
class Task:
    """Work of one run: the plan to read and the folder to write."""

    plan: str
    output: str
    model: str
    cores: int
    sizes: tuple[int, ...]
    """Latent pixels a side, ascending."""

    def videos(self) -> list[Video]:
        """Read the plan."""
        return list(pq.read_table(self.plan).to_pylist())


def main() -> None:
    """Run one contender on both corpora; print its seconds, or the reason that it cannot run."""
    job = json.loads(sys.argv[1])
    start, run = _PEERS[job["peer"]]
    try:
        start(job["cores"])
    except ImportError as error:
        print(json.dumps({"absent": f"not installed ({error})"}))
        return
    seconds = []
    for plan, output in job["runs"]:
        Path(output).mkdir()
        task = Task(plan, output, job["model"], job["cores"], tuple(job["sizes"]))
        started = time.perf_counter()
        run(task)
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"seconds": seconds}))


# --- shared by all -------------------------------------------------------------------------------------------------


def decode(video: Mapping[str, Any], sizes: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield the clips of a video: clip_id, and uint8 frames (F, pixels, pixels, 3) as frames_<size>."""
    import decord

    from videogen.data.video import resize_frames

    indices = [index for one in video["indices"] for index in one]
    frames = decord.VideoReader(video["source"], num_threads=1).get_batch(indices).asnumpy()
    largest = resize_frames(frames, sizes[-1] * _FACTOR)
    clips = np.split(largest, np.cumsum([len(one) for one in video["indices"]])[:-1])
    for clip_id, clip in zip(video["clip_ids"], clips, strict=True):
        yield {"clip_id": clip_id, **{f"frames_{size}": resize_frames(clip, size * _FACTOR) for size in sizes}}


def load(model: str, threads: int) -> "AutoencoderKL":
    """Return the VAE."""
    import torch
    from diffusers import AutoencoderKL

    torch.set_num_threads(threads)
    return AutoencoderKL.from_pretrained(f"{model}/autoencoder").eval().to(memory_format=torch.channels_last)


def encode(vae: "AutoencoderKL", clip: Mapping[str, Any], sizes: Sequence[int]) -> dict[str, Any]:
    """Return the row of a clip: clip_id, and float16 bytes as latents_<size> and latents_<size>_logvar."""
    import torch

    row = {"clip_id": clip["clip_id"]}
    with torch.inference_mode():
        for size in sizes:
            pixels = torch.from_numpy(np.array(clip[f"frames_{size}"])).permute(0, 3, 1, 2).float() / 127.5 - 1
            posterior = vae.encode(pixels).latent_dist
            row[f"latents_{size}"] = posterior.mean.numpy().astype(np.float16).tobytes()
            row[f"latents_{size}_logvar"] = posterior.logvar.numpy().astype(np.float16).tobytes()
    return row


def write(rows: Iterable[Mapping[str, Any]], path: Path, sizes: Sequence[int]) -> None:
    """Write rows as one parquet file, a few at a time."""
    names = [name for size in sizes for name in (f"latents_{size}", f"latents_{size}_logvar")]
    schema = pa.schema([("clip_id", pa.string()), *((name, pa.large_binary()) for name in names)])
    with pq.ParquetWriter(path, schema) as writer:
        waiting: list[Mapping[str, Any]] = []
        for row in rows:
            waiting.append(row)
            if len(waiting) == _CLIPS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
                waiting = []
        if waiting:
            writer.write_table(pa.Table.from_pylist(waiting, schema=schema))


# --- a process a core, nothing around -------------------------------------------------------------------------------


def start_nothing(cores: int) -> None:
    """Do nothing: this contender starts no service before the clock."""
    del cores


def plain_loop(task: Task) -> None:
    """Give every core its share of the videos."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_loop, args=(task, core)) for core in range(task.cores)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        if worker.exitcode:
            raise RuntimeError(f"a loop ended with {worker.exitcode}")


def _loop(task: Task, core: int) -> None:
    vae = load(task.model, 1)
    clips = (clip for video in task.videos()[core :: task.cores] for clip in decode(video, task.sizes))
    write((encode(vae, clip, task.sizes) for clip in clips), Path(task.output, f"{core}.parquet"), task.sizes)


# --- torch DataLoader -----------------------------------------------------------------------------------------------


class _Decoded:
    """Map-style torch dataset of videos."""

    def __init__(self, task: Task) -> None:
        self._videos = task.videos()
        self._sizes = task.sizes

    def __len__(self) -> int:
        return len(self._videos)

    def __getitem__(self, index: int) -> list[dict[str, Any]]:
        return list(decode(self._videos[index], self._sizes))


def dataloader(task: Task) -> None:
    """Decode in two workers of a DataLoader, encode and write in the main process."""
    from torch.utils.data import DataLoader

    vae = load(task.model, task.cores)
    batches: Any = DataLoader(
        _Decoded(task),  # type: ignore[arg-type]
        batch_size=None,
        num_workers=2,
        # Forked from a process that has used threads, workers hang.
        multiprocessing_context="spawn",
    )
    rows = (encode(vae, clip, task.sizes) for clips in batches for clip in clips)
    write(rows, Path(task.output, "0.parquet"), task.sizes)


# --- Ray Data -------------------------------------------------------------------------------------------------------


def start_ray(cores: int) -> None:
    """Start Ray with its default settings, without its log."""
    import ray
    import ray.data

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(address="local", num_cpus=cores, include_dashboard=False, log_to_driver=False, object_store_memory=2 << 30)
    ray.data.DataContext.get_current().enable_progress_bars = False


class _Encoder:
    """Encoder of an actor pool."""

    def __init__(self, task: Task) -> None:
        self._vae = load(task.model, 1)
        self._sizes = task.sizes

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        names = list(batch)
        clips = [dict(zip(names, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        rows = [encode(self._vae, clip, self._sizes) for clip in clips]
        return {name: [row[name] for row in rows] for name in rows[0]}


def ray_data(task: Task) -> None:
    """Run flat_map from videos to clips, map_batches with an actor pool, write_parquet."""
    import ray.data

    videos = task.videos()
    sizes = task.sizes

    def clips_of(video: dict[str, Any]) -> list[dict[str, Any]]:
        return list(decode(video, sizes))

    (
        ray.data.from_items(videos, override_num_blocks=len(videos))
        .flat_map(clips_of, num_cpus=0.5)
        .map_batches(
            _Encoder,
            fn_constructor_args=(task,),
            batch_size=8,
            num_cpus=0.5,
            compute=ray.data.ActorPoolStrategy(size=task.cores),
        )
        .write_parquet(task.output)
    )


# --- Daft -----------------------------------------------------------------------------------------------------------


def start_daft(cores: int) -> None:
    """Import Daft, so that its import is not timed."""
    del cores
    importlib.import_module("daft")


def daft_frame(task: Task) -> None:
    """Decode in a UDF that gives a list of clips, explode, encode in a UDF with a state, write_parquet."""
    daft: Any = importlib.import_module("daft")
    kind = daft.DataType
    sizes = task.sizes
    frames = {f"frames_{size}": kind.binary() for size in sizes}
    latents = {name: kind.binary() for size in sizes for name in (f"latents_{size}", f"latents_{size}_logvar")}

    clip_type = kind.struct({"clip_id": kind.string(), **frames})
    row_type = kind.struct({"clip_id": kind.string(), **latents})
    in_processes = daft.cls(use_process=True, max_concurrency=task.cores)

    @in_processes
    class Decoder:
        @daft.method.batch(return_dtype=kind.list(clip_type), batch_size=1)
        def decode(self, sources: Any, clip_ids: Any, indices: Any) -> list[list[dict[str, Any]]]:
            rows = zip(*(column.to_pylist() for column in (sources, clip_ids, indices)), strict=True)
            videos = [dict(zip(("source", "clip_ids", "indices"), row, strict=True)) for row in rows]
            return [[_as_bytes(clip) for clip in decode(video, sizes)] for video in videos]

    @in_processes
    class Encoder:
        def __init__(self) -> None:
            self._vae = load(task.model, 1)

        @daft.method.batch(return_dtype=row_type, batch_size=8)
        def encode(self, clips: Any) -> list[dict[str, Any]]:
            return [encode(self._vae, _as_arrays(clip, sizes), sizes) for clip in clips.to_pylist()]

    column = daft.col
    (
        daft.from_pylist(task.videos())
        .into_batches(1)
        .select(Decoder().decode(column("source"), column("clip_ids"), column("indices")).alias("clip"))
        .explode("clip")
        .select(Encoder().encode(column("clip")).alias("row"))
        .select(column("row").unnest())
        .write_parquet(task.output)
    )


def _as_bytes(clip: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value if isinstance(value, str) else value.tobytes() for name, value in clip.items()}


def _as_arrays(clip: Mapping[str, Any], sizes: Sequence[int]) -> dict[str, Any]:
    arrays = {
        f"frames_{size}": np.frombuffer(clip[f"frames_{size}"], np.uint8).reshape(-1, size * _FACTOR, size * _FACTOR, 3)
        for size in sizes
    }
    return {"clip_id": clip["clip_id"], **arrays}


_PEERS: dict[str, tuple[Callable[[int], None], Callable[[Task], None]]] = {
    "plain loop": (start_nothing, plain_loop),
    "torch DataLoader": (start_nothing, dataloader),
    "Ray Data": (start_ray, ray_data),
    "Daft": (start_daft, daft_frame),
}


if __name__ == "__main__":
    main()
