"""Raw videos as a dataset of frames, for the stage that comes before there are latents: the image autoencoder."""

import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Self

import numpy as np

from videogen.config import CascadeConfig
from videogen.data.datasets.clips import Clip, ClipSpec, list_videos, plan_clips
from videogen.data.datasets.clips_table import KIND as CLIPS_KIND
from videogen.data.datasets.clips_table import ClipsTable
from videogen.data.datasets.dataset import ByteCache, Row, Shapes
from videogen.data.isolation import shared_decoder
from videogen.data.tables.published import read_manifest
from videogen.data.video import VideoError
from videogen.errors import UserError
from videogen.hashing import content_hash

logger = logging.getLogger(__name__)

_CACHE_BYTES = 512 << 20


class FrameDataset:
    """Clips of a raw corpus, decoded when they are asked for.

    Args:
        clips: what `open` has planned.
        spec: their length, rate and size.
    """

    def __init__(self, clips: Sequence[Clip], spec: ClipSpec) -> None:
        self._clips = list(clips)
        self._spec = spec
        self._frames: ByteCache[np.ndarray] = ByteCache(_CACHE_BYTES)

    @classmethod
    def open(cls, uri: str, config: CascadeConfig) -> Self:
        """Plan the clips of the corpus at `uri`; videos that cannot be read are left out, with a warning.

        Of a clips table, these are the clips that it keeps.

        Raises:
            UserError: no folder, no video, or none that can be read.
        """
        spec = ClipSpec.of(config)
        if (read_manifest(uri) or {}).get("kind") == CLIPS_KIND:
            return cls(_clips_of_table(ClipsTable.open(uri)), spec)
        plan = plan_clips(list_videos(uri, "Corpus"), spec)
        for failure in plan.failures:
            logger.warning("%s is left out: %s", failure.uri, failure.error)
        if not plan.clips:
            first = plan.failures[0]
            raise UserError(f"Corpus {uri!r} holds no usable video; of {first.uri!r}: {first.error}.")
        return cls(plan.clips, spec)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all clips and of how they are decoded."""
        return content_hash([clip.clip_id for clip in self._clips], self._spec.as_dict())

    def __len__(self) -> int:
        return len(self._clips)

    def shapes(self) -> Shapes:
        """Return the shape of every row; single frames are trained on, so all are of the rate that is aimed at."""
        return self._spec.shapes(
            np.array([clip.width for clip in self._clips], np.int64),
            np.array([clip.height for clip in self._clips], np.int64),
            np.full(len(self._clips), self._spec.fps),
        )

    def row(self, index: int, fields: Sequence[str] = ("frames",)) -> Row:
        """Return {"frames": uint8 (F, H, W, 3)}.

        Headers do not tell damaged frames. Where decoding fails the next clip that works stands in, always the same
        one, cut to the same size, so that one bad video neither stops a training run nor makes it irreproducible.
        """
        unknown = set(fields) - {"frames"}
        if unknown:
            raise KeyError(f"{sorted(unknown)[0]!r} is not a field of raw videos; they have only 'frames'")
        return {"frames": self._frames.get(index, lambda: self._decode(index))}

    def _decode(self, index: int) -> np.ndarray:
        size = self._spec.frame_size(self._clips[index].width, self._clips[index].height)
        for offset in range(len(self._clips)):
            clip = self._clips[(index + offset) % len(self._clips)]
            try:
                return shared_decoder().read_frames(clip.source, clip.frame_indices, size)
            except VideoError as error:
                logger.warning("%s cannot be decoded, the next clip stands in: %s", clip.source, error)
        raise UserError(f"None of the {len(self._clips)} clips can be decoded: see the warnings above for the reasons.")


def _clips_of_table(table: ClipsTable) -> list[Clip]:
    names = ["clip_id", "source", "frame_indices", "fps", "width", "height", "caption"]
    rows = (row for batch in table.batches(names, "dropped_by = ''") for row in batch.to_pylist())
    return [Clip(**{**row, "frame_indices": tuple(row["frame_indices"])}) for row in rows]


def corpus_fingerprint(uri: str) -> str:
    """Return a hash of the raw corpus at `uri`; of videos only the list of files is read."""
    if (read_manifest(uri) or {}).get("kind") == CLIPS_KIND:
        return ClipsTable.open(uri).fingerprint
    return content_hash([[video.path, video.version] for video in list_videos(uri)])
