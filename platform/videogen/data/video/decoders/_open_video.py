"""Decoder selection with fallback: the fast decoder where it is reliable, else the one that reads everything."""

import logging
from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np

from videogen.data.video._info import VideoError, VideoInfo, reason_of
from videogen.data.video._probe import MAX_PIXELS
from videogen.data.video.decoders._base import Decoder, frames_at_once
from videogen.data.video.decoders._decord import DecordDecoder
from videogen.data.video.decoders._pyav import PyavDecoder
from videogen.data.video.decoders._torchcodec import TorchcodecDecoder
from videogen.errors import UserError

__all__ = [
    "AUTO",
    "DECODERS",
    "Decoder",
    "OpenVideo",
    "decoder_versions",
    "frames_at_once",
    "open_video",
    "require_decoder",
]

logger = logging.getLogger(__name__)

DECODERS: dict[str, type[Decoder]] = {
    decoder.name: decoder for decoder in (DecordDecoder, PyavDecoder, TorchcodecDecoder)
}

AUTO = ("decord", "pyav")
"""Decoders that "auto" tries, in this order."""

READS = "%s reads the video"
"""Log message of each choice; the parent process reads from it which decoder crashed."""


def open_video(path: str, info: VideoInfo, decoder: str = "auto") -> "OpenVideo":
    """Open a local video for reading.

    Args:
        path: a local file.
        info: its `probe` result.
        decoder: a name in `DECODERS`, or "auto": the first of `AUTO` that reads the file without an error.

    Raises:
        UserError: unknown decoder, or it is not installed.
        VideoError: the decoder cannot read the file.
    """
    if decoder != "auto" and decoder not in DECODERS:
        raise _unknown(decoder)
    if info.width * info.height > MAX_PIXELS:
        raise VideoError(f"its frames of {info.width} x {info.height} pixels are larger than {MAX_PIXELS} pixels")
    return OpenVideo(path, info, AUTO if decoder == "auto" else (decoder,))


def require_decoder(name: str) -> None:
    """Check that a decoder can be loaded, before any worker needs it.

    Raises:
        UserError: unknown decoder, or it is not installed; never raised for "auto".
    """
    if name == "auto":
        return
    if name not in DECODERS:
        raise _unknown(name)
    try:
        DECODERS[name].version()
    except (ImportError, OSError) as error:
        raise UserError(
            f"Decoder {name!r} cannot be loaded ({reason_of(error)}): choose the decoder 'auto'."
        ) from error


def _unknown(name: str) -> UserError:
    return UserError(f"Decoder {name!r} does not exist: choose 'auto', {', '.join(map(repr, DECODERS))}.")


def decoder_versions() -> dict[str, str]:
    """Return the versions of all installed decoders by name; part of a table's provenance."""
    versions = {}
    for name, decoder in DECODERS.items():
        try:
            versions[name] = decoder.version()
        except (UserError, ImportError):
            continue
    return versions


class OpenVideo:
    """An open video, read by the first candidate decoder and, after an error, by the next one."""

    def __init__(self, path: str, info: VideoInfo, candidates: Sequence[str]) -> None:
        self.info = info
        self._path = path
        self._candidates = list(candidates)
        self._opened: Decoder | None = None
        self._advance(None)

    @property
    def decoder(self) -> str:
        """Name of the decoder in use."""
        return self._current.name

    def read(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """See `Decoder.read`; a change of decoder neither repeats nor skips frames."""
        remaining = [int(index) for index in indices]
        while remaining:
            try:
                for frames in self._current.read(remaining):
                    yield frames
                    remaining = remaining[len(frames) :]
            except VideoError as error:
                self._require_existing(remaining, error)
                self._advance(error)

    def stream(self) -> Iterator[tuple[int, np.ndarray]]:
        """See `Decoder.stream`; a change of decoder neither repeats nor skips frames."""
        position = 0
        while position < self.info.num_frames:
            try:
                for number, frame in self._current.stream():
                    if number >= position:
                        position = number + 1
                        yield number, frame
            except VideoError as error:
                self._advance(error)

    def close(self) -> None:
        """Close the file."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _current(self) -> Decoder:
        assert self._opened is not None, "the video is closed"
        return self._opened

    def _require_existing(self, indices: list[int], error: VideoError) -> None:
        if not all(0 <= index < self.info.num_frames for index in indices):
            raise error

    def _advance(self, error: VideoError | None) -> None:
        """Open the next candidate that can read the file; raise the last error if there is none."""
        self.close()
        while self._candidates:
            decoder = DECODERS[self._candidates.pop(0)]
            # The last candidate is tried in any case.
            if self._candidates and (doubts := decoder.doubts(self.info)):
                logger.debug("%s is skipped: %s", decoder.name, doubts)
                continue
            logger.info(READS, decoder.name)
            try:
                self._opened = decoder(self._path, self.info)
            except VideoError as problem:
                error = problem
                continue
            return
        assert error is not None
        raise error
