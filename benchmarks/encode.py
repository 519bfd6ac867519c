"""Encode pipeline against a bare decord + VAE loop: same videos, same weights, same cores, same run.

    python benchmarks/encode.py

The bare loop is one process a core, each with one thread, that decodes with decord, resizes and calls the VAE; it
writes nothing, isolates nothing and is timed without its start-up. The pipeline is `pipelines.encode.encode`. Its
start-up (actors that import torch and load the VAE) is a constant, so its throughput is taken from the difference of
a long and a short corpus, and the start-up is printed beside it. Runs alternate; medians are printed.
"""

import argparse
import itertools
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from videogen.cli import parser, run_job
from videogen.config import CascadeConfig, load_preset

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark and print one line of a Markdown table."""
    options = _options(argv)
    config = load_preset("tiny")
    with tempfile.TemporaryDirectory(prefix="videogen-benchmark-") as name:
        folder = Path(name)
        short, long = (
            _make_corpus(folder / f"clips-{count}", count, config) for count in (options.clips, 3 * options.clips)
        )
        model = _make_model(folder / "model", config)
        bare, marginal, startup = [], [], []
        for repeat in range(options.repeats):
            bare.append(_bare(short, model, config))
            short_s, _ = _pipeline(short, folder / f"short-{repeat}", model, config)
            long_s, table = _pipeline(long, folder / f"long-{repeat}", model, config)
            bare.append(_bare(short, model, config))
            marginal.append(2 * options.clips / (long_s - short_s))
            startup.append(short_s - options.clips / marginal[-1])
            difference = _difference(table, model, config)
            print(
                f"repeat {repeat}: bare {bare[-2]:.1f} and {bare[-1]:.1f}, pipeline {marginal[-1]:.1f} clips/s, "
                f"short {short_s:.1f} s, long {long_s:.1f} s",
                file=sys.stderr,
            )
    ratio = statistics.median(marginal) / statistics.median(bare)
    print("| cores | bare loop, clips/s | pipeline, clips/s | ratio | start-up, s | largest difference of latents |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {os.cpu_count()} | {statistics.median(bare):.1f} | {statistics.median(marginal):.1f} | {ratio:.2f} "
        f"| {statistics.median(startup):.1f} | {difference:.4f} |"
    )


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    arguments = parser(__doc__)
    arguments.add_argument(
        "--clips", type=int, default=256, help="clips of the short corpus; the long one has three times as many"
    )
    arguments.add_argument("--repeats", type=int, default=3)
    return arguments.parse_args(argv)


def _make_corpus(folder: Path, num_clips: int, config: CascadeConfig) -> Path:
    from videogen.data.video import write_mp4
    from videogen.data.world import all_attributes, render_clip

    folder.mkdir(parents=True)
    attributes = itertools.cycle(all_attributes())
    for index in range(num_clips):
        frames = render_clip(next(attributes), index, config.num_output_frames, config.resolution)
        (folder / f"{index:05d}.mp4").write_bytes(write_mp4(frames, config.output_fps))
    return folder


def _make_model(folder: Path, config: CascadeConfig) -> Path:
    import torch

    from videogen.models.autoencoder import build_image_autoencoder

    torch.manual_seed(0)
    build_image_autoencoder(config.autoencoder.model, config.resolution).save_pretrained(folder / "autoencoder")
    return folder


def _bare(corpus: Path, model: Path, config: CascadeConfig) -> float:
    """Return clips a second of one bare loop a core."""
    context = multiprocessing.get_context("spawn")
    cores = os.cpu_count() or 1
    paths = sorted(map(str, corpus.glob("*.mp4")))
    barrier = context.Barrier(cores + 1)
    workers = [
        context.Process(target=_bare_loop, args=(paths[core::cores], str(model), config, barrier))
        for core in range(cores)
    ]
    for worker in workers:
        worker.start()
    barrier.wait()
    started = time.perf_counter()
    for worker in workers:
        worker.join()
    return len(paths) / (time.perf_counter() - started)


def _bare_loop(paths: list[str], model: str, config: CascadeConfig, barrier: Any) -> None:
    import torch

    torch.set_num_threads(1)
    vae = _load(model)
    with torch.inference_mode():
        _bare_latents(paths[0], vae, config)
        barrier.wait()
        for path in paths:
            _bare_latents(path, vae, config)
    # Past its own exit handlers: tearing torch down is not encoding.
    os._exit(0)


def _load(model: str) -> "AutoencoderKL":
    import torch
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(f"{model}/autoencoder").eval().to(memory_format=torch.channels_last)


def _bare_latents(path: str, vae: "AutoencoderKL", config: CascadeConfig) -> list[np.ndarray]:
    """Decode one clip and encode it at every size, with nothing around."""
    import decord
    import torch
    from PIL import Image

    frames = decord.VideoReader(path, num_threads=1).get_batch(range(config.num_output_frames)).asnumpy()
    latents = []
    for size in config.latent_sizes:
        pixels = size * config.vae_scale_factor
        if pixels != frames.shape[1]:
            images = [Image.fromarray(frame).resize((pixels, pixels), Image.Resampling.BICUBIC) for frame in frames]
            resized = np.stack([np.asarray(image) for image in images])
        else:
            resized = frames
        batch = torch.from_numpy(resized).permute(0, 3, 1, 2).float() / 127.5 - 1
        latents.append(vae.encode(batch).latent_dist.mean.numpy())
    return latents


def _pipeline(corpus: Path, output: Path, model: Path, config: CascadeConfig) -> tuple[float, str]:
    """Return the seconds of one call of the pipeline, and the table that it wrote."""
    from pipelines import cluster
    from pipelines.encode import EncodeOptions, encode

    cluster.connect()
    started = time.perf_counter()
    result = encode(str(corpus), str(output), config, str(model), options=EncodeOptions(encoders=os.cpu_count()))
    assert result.failed == 0
    return time.perf_counter() - started, result.uri


def _difference(table_uri: str, model: Path, config: CascadeConfig) -> float:
    """Return how far the pipeline's float16 latents are from the bare loop's, over the first clips."""
    import torch

    from videogen.data import LatentsTable

    table = LatentsTable.open(table_uri)
    vae = _load(str(model))
    largest = 0.0
    with torch.inference_mode():
        for index in range(4):
            fields = [f"latents_{size}" for size in config.latent_sizes]
            row = table.row(index, [*fields, "source"])
            for field, expected in zip(fields, _bare_latents(row["source"], vae, config), strict=True):
                largest = max(largest, float(np.abs(row[field] - expected).max()))
    return largest


if __name__ == "__main__":
    sys.exit(run_job(main))
