"""Frame dataset: raw videos decoded on access, to train the stages that work on pixels."""

import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Self

import numpy as np

from videogen.cache import ByteCache
from videogen.data.datasets.clips import Clip, ClipSpec, plan_clips
from videogen.data.datasets.clips_schema import CLIPS
from videogen.data.datasets.clips_table import ClipsTable
from videogen.data.datasets.dataset import Shapes
from videogen.data.isolation import shared_decoder
from videogen.data.sources import open_source
from videogen.data.tables import Row, kind_of
from videogen.data.video import VideoError
from videogen.errors import UserError
from videogen.hashing import content_hash
from videogen.stages import CascadeConfig

logger = logging.getLogger(__name__)

_CACHE_BYTES = 512 << 20


class FrameDataset:
    """Clips of a raw corpus, decoded on access.

    Args:
        clips: planned clips.
        spec: their length, frame rate and size.
    """

    def __init__(self, clips: Sequence[Clip], spec: ClipSpec) -> None:
        self._clips = list(clips)
        self._spec = spec
        self._frames: ByteCache[np.ndarray] = ByteCache(_CACHE_BYTES)

    @classmethod
    def open(cls, uri: str, config: CascadeConfig) -> Self:
        """Plan the clips of the corpus at `uri`; unreadable videos are skipped with a warning.

        A clips table gives the clips that its policy keeps.

        Raises:
            UserError: there is no folder, no video, or no readable video.
        """
        spec = ClipSpec.of(config)
        if kind_of(uri) == CLIPS.name:
            return cls(ClipsTable.open(uri).kept_clips(), spec)
        plan = plan_clips(list(open_source(uri, what="Corpus").videos()), spec)
        for failure in plan.failures:
            logger.warning("%s is skipped: %s", failure.uri, failure.error)
        return cls(plan.require_clips(f"Corpus {uri!r} holds"), spec)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all clips and of the settings that they are decoded with."""
        return content_hash([clip.clip_id for clip in self._clips], self._spec.as_dict())

    def __len__(self) -> int:
        return len(self._clips)

    def shapes(self) -> Shapes:
        """Return the shape of every row; training uses single frames, so all have the target frame rate."""
        return self._spec.shapes(
            np.array([clip.width for clip in self._clips], np.int64),
            np.array([clip.height for clip in self._clips], np.int64),
            np.full(len(self._clips), self._spec.fps),
        )

    def row(self, index: int, fields: Sequence[str] = ("frames",)) -> Row:
        """Return {"frames": uint8 (F, H, W, 3)}.

        Damaged frames are found only by decoding. A clip that cannot be decoded is replaced by the next one that can,
        cropped to the same size, so one bad video neither stops a training run nor makes it irreproducible.
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
                logger.warning("%s cannot be decoded, the next clip replaces it: %s", clip.source, error)
        raise UserError(f"None of the {len(self._clips)} clips can be decoded: see the warnings above for the reasons.")


def corpus_fingerprint(uri: str) -> str:
    """Return a fingerprint of the raw corpus at `uri`; for a folder of videos, only the files are listed."""
    if kind_of(uri) == CLIPS.name:
        return ClipsTable.open(uri).fingerprint
    return content_hash([[video.path, video.version] for video in open_source(uri).videos()])
