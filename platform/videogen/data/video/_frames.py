"""Frames of a video at one size, and mp4 files from frames.

Everything here runs in the calling process. Untrusted videos are read through `videogen.data.isolation`, which does the
same in a child process.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from videogen.data.video._local_file import MAX_FILE_BYTES, local_file
from videogen.data.video._probe import probe
from videogen.data.video.decoders import open_video

DECODE_SPEC = {
    "decoder": "decord 0.6",
    "crop": "centre square",
    "resize": "bicubic, antialiased",
    "range": "uint8 RGB",
    "pixels": "square",
}
"""Decoding settings that determine the pixels; part of the manifest of every table of latents."""

Size = int | Sequence[int]
"""Height and width in pixels; a single number is the side of a square."""


@dataclass(frozen=True)
class DecodedClip:
    """Decoded frames and the decoder that read them."""

    frames: np.ndarray
    """uint8 RGB, (F, H, W, 3)."""
    decoder: str
    """Name of the decoder; "auto" chooses one for each file."""


def read_frames(source: str | bytes, indices: Sequence[int], size: Size, decoder: str = "auto") -> np.ndarray:
    """Decode frames, centre-cropped and resized; see `read_clip`, which also returns the decoder."""
    return read_clip(source, indices, size, decoder).frames


def read_clip(
    source: str | bytes,
    indices: Sequence[int],
    size: Size,
    decoder: str = "auto",
    max_file_bytes: int = MAX_FILE_BYTES,
) -> DecodedClip:
    """Decode frames, centre-cropped and resized.

    Args:
        source: URI of the video, or its content.
        indices: frame numbers in presentation order; any order, repetitions allowed.
        size: height and width of the result in pixels; a single number is the side of a square.
        decoder: see `open_video`.
        max_file_bytes: larger remote files are refused.

    Returns:
        uint8 RGB frames of shape (len(indices), H, W, 3), and the name of the decoder.

    Raises:
        VideoError: unreadable, or a frame number is out of range.
        UserError: there is no such decoder.
    """
    frames = np.empty((len(indices), *_sides(size), 3), np.uint8)
    filled = 0
    with local_file(source, max_file_bytes) as path:
        info = probe(path)
        with open_video(path, info, decoder) as video:
            for batch in video.read(indices):
                frames[filled : filled + len(batch)] = resize_frames(batch, size, info.sample_aspect_ratio)
                filled += len(batch)
            return DecodedClip(frames, video.decoder)


def resize_frames(frames: np.ndarray, size: Size, sample_aspect_ratio: float = 1.0) -> np.ndarray:
    """Centre-crop frames to the aspect ratio of `size` and resize them with antialiasing.

    Args:
        frames: uint8 (F, h, w, 3).
        size: height and width of the result.
        sample_aspect_ratio: displayed width over height of a pixel of `frames`; pixels of the result are square.

    Returns:
        uint8 (F, H, W, 3).
    """
    height, width = frames.shape[1:3]
    wanted_height, wanted_width = _sides(size)
    if (height, width, sample_aspect_ratio) == (wanted_height, wanted_width, 1):
        return frames
    # Aspect ratio of the crop, counted in pixels of `frames`.
    shape = wanted_width / wanted_height / sample_aspect_ratio
    # The largest crop of that aspect ratio.
    cut_height, cut_width = min(height, width / shape), min(width, height * shape)
    left, top = (width - cut_width) / 2, (height - cut_height) / 2
    box = (left, top, left + cut_width, top + cut_height)
    target = (wanted_width, wanted_height)
    images = [Image.fromarray(frame).resize(target, Image.Resampling.BICUBIC, box=box) for frame in frames]
    return np.stack([np.asarray(image) for image in images])


def _sides(size: Size) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def write_mp4(frames: np.ndarray, fps: float, crf: int = 14) -> bytes:
    """Encode frames as H.264 in an mp4 that browsers can play progressively.

    Args:
        frames: uint8 RGB, (F, H, W, 3), height and width even (chroma is subsampled by 2).
        fps: frames per second.
        crf: quality, lower is better; 14 is visually lossless.
    """
    import av

    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise ValueError(f"frames must be uint8 (F, H, W, 3) with F > 0, not {frames.dtype} {frames.shape}")
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise ValueError(f"frames are {frames.shape[2]} x {frames.shape[1]}, but H.264 needs even sides")
    rate = Fraction(fps).limit_denominator(1001)
    # faststart makes FFmpeg read its output again, which requires a file.
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        with av.open(file.name, "w", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": "fast"})
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            # A single thread makes the output deterministic across machines.
            stream.thread_count = 1
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        return Path(file.name).read_bytes()
