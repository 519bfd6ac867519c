"""Preflight checks of encoding: one usable video, and no latents of another encoder."""

import itertools
import time
from collections.abc import Collection, Iterator, Sequence

from pipelines.encode.corpus import Corpus
from videogen.config import FrameSize
from videogen.data.datasets.clips import Clip, ClipSpec, Failure, plan_clips
from videogen.data.isolation import shared_decoder
from videogen.data.sources import Video
from videogen.data.tables import read_manifest
from videogen.data.video import VideoError
from videogen.errors import UserError
from videogen.stages import CascadeConfig

_MOST_VIDEOS = 64
_LONGEST_S = 20.0
"""The search for one good video ends here without a verdict: a large corpus may begin with bad ones."""


def require_usable_video(corpus: Corpus, config: CascadeConfig) -> None:
    """Decode one clip of a corpus, normally of its first video.

    Raises:
        UserError: no video gives a clip that can be decoded.
    """
    if corpus.clips is not None:  # ingested clips have been decoded before
        return
    spec, deadline = ClipSpec.of(config), time.monotonic() + _LONGEST_S
    videos = corpus.first(_MOST_VIDEOS + 1)
    failures: list[Failure] = []
    for part in _growing(videos[:_MOST_VIDEOS]):
        plan = plan_clips(part, spec)
        failures += plan.failures
        for clip in plan.clips:
            failure = _decoding_failure(clip, spec.frame_size(clip.width, clip.height))
            if failure is None or time.monotonic() > deadline:
                return
            failures.append(failure)
    if len(videos) <= _MOST_VIDEOS:
        raise UserError(
            f"None of the {len(videos)} videos in {corpus.uri!r} gives a clip of {spec.num_frames} frames; of "
            f"{failures[0].uri!r}: {failures[0].error}."
        )


def _growing(videos: Sequence[Video]) -> Iterator[Sequence[Video]]:
    """Yield the first video, then groups of growing size, which are probed in parallel."""
    start = 0
    for size in itertools.accumulate(itertools.repeat(4), lambda size, factor: size * factor, initial=1):
        if start >= len(videos):
            return
        yield videos[start : start + size]
        start += size


def _decoding_failure(clip: Clip, size: FrameSize) -> Failure | None:
    try:
        shared_decoder().read_frames(clip.source, clip.frame_indices, size)
    except VideoError as error:
        return Failure(clip.source, "decode", str(error))
    return None


def require_own_latents(table: str, fingerprints: Collection[str], whose: str) -> None:
    """Refuse a folder with latents of an autoencoder that is not available.

    Args:
        table: folder of the latents.
        fingerprints: of the available autoencoders.
        whose: name of these autoencoders in the error message.

    Raises:
        UserError: the latents come from another autoencoder.
    """
    manifest = read_manifest(table)
    if manifest is None:
        return
    theirs = manifest.get("encoder_fingerprint")
    if theirs not in fingerprints:
        raise UserError(
            f"{table!r} holds latents of another encoder ({theirs}) than {whose}: give another place for the latents, "
            f"or remove the old ones."
        )
