"""Decoder PyAV: a current FFmpeg with every codec, and the reference for frame numbering."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from videogen.data.video._info import VideoError, VideoInfo, reason_of
from videogen.data.video._probe import clockwise, index_packets, open_container, packets_of, video_stream
from videogen.data.video.decoders._base import Decoder

if TYPE_CHECKING:
    import av.container
    import av.video.frame

_UNKNOWN = -1


class PyavDecoder(Decoder):
    """Decoder that uses PyAV: seeks to the key frame before the requested frame and decodes forward."""

    name = "pyav"

    def __init__(self, path: str, info: VideoInfo) -> None:
        super().__init__(path, info)
        # The packets are read again: their times would make VideoInfo large, and the file is in the page cache.
        with open_container(path) as container:
            self._index = index_packets(container, video_stream(container))
        self._number_of: dict[int | None, int] = {pts: number for number, pts in enumerate(self._index.pts)}
        self._container: av.container.InputContainer | None = None
        self._frames: Iterator[tuple[int, av.video.frame.VideoFrame]] = iter(())
        self._next = _UNKNOWN
        """Number of the frame that `_frames` is expected to yield next."""

    @classmethod
    def version(cls) -> str:
        """Return the versions of PyAV and of its FFmpeg."""
        from av import __version__, library_versions

        return f"PyAV {__version__} (libavcodec {'.'.join(map(str, library_versions['libavcodec']))})"

    def _read(self, indices: list[int]) -> np.ndarray:
        found: dict[int, np.ndarray] = {}
        for wanted in sorted(set(indices)):
            found[wanted] = self._pixels(self._find(wanted))
        return np.stack([found[index] for index in indices])

    def stream(self) -> Iterator[tuple[int, np.ndarray]]:
        """See `Decoder.stream`."""
        for number in range(self.info.num_frames):
            yield number, self._pixels(self._find(number))

    def close(self) -> None:
        """Close the file."""
        self._frames = iter(())
        if self._container is not None:
            self._container.close()
            self._container = None

    def _find(self, wanted: int) -> "av.video.frame.VideoFrame":
        key = self._key_before(wanted)
        if not self._key_number(key) <= self._next <= wanted:
            self._go_to(key)
        frame = self._scan(wanted)
        if frame is None and key is not None:
            # In some containers, a seek lands behind the requested key frame.
            self._go_to(None)
            frame = self._scan(wanted)
        if frame is None:
            raise VideoError(f"its frame {wanted} cannot be decoded")
        return frame

    def _scan(self, wanted: int) -> "av.video.frame.VideoFrame | None":
        for number, frame in self._frames:
            self._next = number + 1
            if number == wanted:
                return frame
            if number > wanted:
                return None
        self._next = _UNKNOWN
        return None

    def _key_before(self, wanted: int) -> int | None:
        """Return the time of the last key frame from which `wanted` can be decoded; None for the start of the file."""
        if not self._index.pts:
            return None
        position = bisect_right(self._index.key_pts, self._index.pts[wanted])
        return self._index.key_pts[position - 1] if position > 1 else None

    def _key_number(self, key: int | None) -> int:
        """Return the number of the first frame displayed at or after a key frame."""
        return 0 if key is None else bisect_left(self._index.pts, key)

    def _go_to(self, key: int | None) -> None:
        """Restart `_frames` at a key frame, or at the start of the file."""
        if self._container is None or key is None:
            self.close()
            self._container = open_container(self.path)
        stream = video_stream(self._container)
        if key is not None:
            self._container.seek(key, stream=stream, backward=True, any_frame=False)
        self._next = self._key_number(key)
        self._frames = self._decode(self._container, stream)

    def _decode(
        self, container: "av.container.InputContainer", stream: "av.video.stream.VideoStream"
    ) -> Iterator[tuple[int, "av.video.frame.VideoFrame"]]:
        """Yield the number and the frame of everything that can be decoded from here on.

        After a damaged frame, all frames up to the next key frame are skipped because they depend on it.
        """
        import av

        count, damaged = 0, False
        for packet in _with_flush(packets_of(container, stream)):
            try:
                frames = packet.decode() if packet is not None else stream.codec_context.decode(None)
            except MemoryError:
                # Not a property of the frame; FFmpeg's own out-of-memory error is also an FFmpegError.
                raise
            except (av.FFmpegError, EOFError, ValueError):
                damaged = True
                continue
            for frame in frames:
                number = self._number_of.get(frame.pts, -1) if self._index.pts else count
                count += 1
                damaged = frame.is_corrupt or (damaged and not frame.key_frame)
                if number >= 0 and not damaged:
                    yield number, frame

    def _pixels(self, frame: "av.video.frame.VideoFrame") -> np.ndarray:
        turns = clockwise(frame.rotation) // 90
        width, height = (self.info.height, self.info.width) if turns % 2 else (self.info.width, self.info.height)
        # The frame size may change within a stream.
        try:
            pixels = frame.to_ndarray(format="rgb24", width=width, height=height)
        except (ValueError, RuntimeError) as error:
            raise VideoError(f"its frames cannot be decoded ({reason_of(error)})") from error
        return np.ascontiguousarray(np.rot90(pixels, -turns)) if turns else pixels


def _with_flush(packets: Iterator[Any]) -> Iterator[Any]:
    """Yield the packets, then None to flush the decoder."""
    yield from packets
    yield None
