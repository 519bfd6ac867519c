"""Held-out data of an evaluation: prompts and real clips that are not in the training data.

In the folder of `jobs/evaluate.py --data`, held-out data is in the sub-folder `held_out/`, or in the folder itself
without one: `prompts.parquet`, and one corpus per sub-folder with videos or a table of latents. Without such
sub-folders the folder is one corpus.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from videogen import storage
from videogen.config import FrameSize
from videogen.data.datasets.clips import Clip, ClipSpec, plan_clips
from videogen.data.datasets.latents_table import LatentsTable, encoder_fingerprint
from videogen.data.isolation import shared_decoder
from videogen.data.sources import open_corpus
from videogen.data.tables import MANIFEST_NAME
from videogen.data.video import SUFFIXES
from videogen.errors import UserError
from videogen.stages import CascadeConfig

PROMPTS_NAME = "prompts.parquet"


@dataclass(frozen=True)
class HeldOutClip:
    """Real clip. `read` returns its frames, uint8 (F, H, W, 3), at the full frame rate, or raises `VideoError`."""

    source: str
    """URI of its video."""
    caption: str | None
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class HeldOut:
    """Prompts and clips to evaluate on."""

    prompts: str | None
    """URI of a prompts table."""
    corpora: dict[str, list[HeldOutClip]]


def find_held_out(uri: str, model: str, config: CascadeConfig, max_clips: int) -> HeldOut:
    """Find held-out data.

    Args:
        uri: folder as described above.
        model: URI of the model folder; tables of latents must have been encoded with its autoencoder.
        config: cascade configuration; clips have the length and size of its videos.
        max_clips: maximum number of clips per corpus, evenly spaced.

    Raises:
        UserError: no held-out data, or latents of another encoder.
    """
    uri = storage.readable_uri(uri, "Data")
    inner = storage.join(uri, "held_out")
    root = inner if storage.is_dir(inner) else uri
    prompts = storage.join(root, PROMPTS_NAME)
    folders = storage.list_dirs(root) if not storage.exists(storage.join(root, MANIFEST_NAME)) else []
    corpora = {}
    for folder in folders or [root]:
        clips = _clips(folder, model, config)
        if clips:
            corpora[folder.rsplit("/", 1)[-1]] = _evenly_spaced(clips, max_clips)
    if not corpora:
        clips = _clips(root, model, config)
        if not clips:
            raise UserError(
                f"Data {uri!r} hold no video and no latents: give a folder made by jobs/make_corpus.py or "
                f"jobs/encode_latents.py, or any folder of videos."
            )
        corpora = {root.rsplit("/", 1)[-1]: _evenly_spaced(clips, max_clips)}
    return HeldOut(prompts if storage.exists(prompts) else None, corpora)


def _clips(folder: str, model: str, config: CascadeConfig) -> list[HeldOutClip]:
    if storage.exists(storage.join(folder, MANIFEST_NAME)):
        return _clips_of_table(folder, model, config)
    if not storage.list_files(folder, SUFFIXES):
        return []
    source, spec = open_corpus(folder, what="Data"), ClipSpec.of(config)
    plan = plan_clips(list(source.videos()), spec, captioned=source.has_captions)
    clips = plan.require_clips(f"Data {folder!r} hold")
    return [_clip_of_video(clip, spec.frame_size(clip.width, clip.height)) for clip in clips]


def _clip_of_video(clip: Clip, size: FrameSize) -> HeldOutClip:
    return HeldOutClip(
        clip.source, clip.caption, lambda: shared_decoder().read_frames(clip.source, clip.frame_indices, size)
    )


def _clips_of_table(folder: str, model: str, config: CascadeConfig) -> list[HeldOutClip]:
    table = LatentsTable.open(folder)
    # Tables of other lengths may serve for training, but not for evaluation.
    table.require_matches(config.of_each_length()[0])
    own = encoder_fingerprint(storage.join(model, "autoencoder"))
    if table.encoder_fingerprint != own:
        raise UserError(
            f"Latents {folder!r} were made by encoder {table.encoder_fingerprint}, but model {model!r} has encoder "
            f"{own}: encode the videos with this model's autoencoder (jobs/encode_latents.py --autoencoder)."
        )
    return [_clip_of_row(table, index) for index in range(len(table))]


def _clip_of_row(table: LatentsTable, index: int) -> HeldOutClip:
    row = table.row(index, ("source", "caption") if table.has_captions else ("source",))
    return HeldOutClip(row["source"], row.get("caption"), lambda: table.row(index, ("frames",))["frames"])


def _evenly_spaced(clips: Sequence[HeldOutClip], count: int) -> list[HeldOutClip]:
    chosen = np.unique(np.linspace(0, len(clips) - 1, min(count, len(clips))).round().astype(int))
    return [clips[index] for index in chosen]
