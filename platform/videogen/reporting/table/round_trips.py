"""Round trips: a frame of a source video beside what the decoder makes of its latents, for a few clips of a table."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from videogen.data.curation.thumbnails import encode_jpeg
from videogen.data.datasets.latents import LatentsTable
from videogen.data.isolation.decoder import IsolatedDecoder
from videogen.data.video.frames import VideoError

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

logger = logging.getLogger(__name__)

_MAX_SIDE = 256
_QUALITY = 92
_AMPLIFIED = 4
_LIMIT_S = 20.0
"""After so many seconds no other clip is begun: a large decoder on a CPU must not hold up a finished table."""


@dataclass(frozen=True)
class RoundTrip:
    """One frame there and back."""

    clip_id: str
    source: str
    frame: int
    """Number of the frame in its video, in presentation order."""
    psnr_db: float
    latent_std: float
    """Standard deviation of the frame's latents as the diffusion models see them, scaled; about 1 is wanted."""
    pictures: tuple[bytes, bytes, bytes]
    """Source, decoded, and their difference four times as strong, as JPEG."""


def round_trips(
    uri: str, load_autoencoder: "Callable[[], AutoencoderKL]", num_clips: int = 6, limit_s: float = _LIMIT_S
) -> list[RoundTrip]:
    """Return the middle frames of clips that are spread evenly over the table, from the largest latents of each.

    Args:
        uri: a finished table of latents.
        load_autoencoder: returns the VAE that made them.
        num_clips: how many at most; fewer after `limit_s` seconds, and without those whose source cannot be read now.
        limit_s: see there.
    """
    table = LatentsTable.open(uri)
    shown = min(num_clips, len(table))
    started = time.monotonic()
    vae = load_autoencoder()
    found: list[RoundTrip] = []
    with IsolatedDecoder() as decoder:
        for index in (place * len(table) // shown for place in range(shown)):
            if time.monotonic() - started > limit_s:
                logger.info("round trips stop after %d clips and %.0f s", len(found), limit_s)
                break
            try:
                found.append(_round_trip(table, index, vae, decoder))
            except VideoError as error:
                logger.info("no round trip of clip %d of %s: %s", index, uri, error)
    return found


def _round_trip(table: LatentsTable, index: int, vae: "AutoencoderKL", decoder: IsolatedDecoder) -> RoundTrip:
    name = f"latents_{table.manifest['latent_sizes'][-1]}"
    row = table.row(index, (name, "clip_id", "source", "frame_indices", "width", "height", "decoder"))
    middle = len(row["frame_indices"]) // 2
    frame = int(row["frame_indices"][middle])
    size = table.clip_spec.frame_size(row["width"], row["height"])
    source = decoder.read_frames(row["source"], [frame], size, row["decoder"])[0]
    decoded = _decode(vae, row[name][middle : middle + 1])
    return RoundTrip(
        clip_id=row["clip_id"],
        source=row["source"],
        frame=frame,
        psnr_db=psnr_db(decoded, source),
        latent_std=float(row[name][middle].std(dtype=np.float32) * table.manifest["scaling_factor"]),
        pictures=(_jpeg(source), _jpeg(decoded), _jpeg(_difference(source, decoded))),
    )


def _decode(vae: "AutoencoderKL", latents: np.ndarray) -> np.ndarray:
    """Return the frame of unscaled latents float16 (1, C, h, w), uint8 (H, W, 3)."""
    import torch

    with torch.inference_mode():
        values = torch.from_numpy(latents.astype(np.float32)).to(vae.device, vae.dtype)
        pixels = vae.decode(values).sample[0].float()
        return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()


def psnr_db(first: np.ndarray, second: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of two uint8 frames of one shape in dB; infinite for equal ones."""
    error = float(np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2))
    return 10 * math.log10(255**2 / error) if error else math.inf


def _difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    apart = np.abs(first.astype(np.int16) - second.astype(np.int16)) * _AMPLIFIED
    return apart.clip(0, 255).astype(np.uint8)


def _jpeg(frame: np.ndarray) -> bytes:
    if max(frame.shape[:2]) > _MAX_SIDE:
        image = Image.fromarray(frame)
        image.thumbnail((_MAX_SIDE, _MAX_SIDE), Image.Resampling.LANCZOS)
        frame = np.asarray(image)
    return encode_jpeg(frame, _QUALITY)
