"""Reconstructions: source frames beside their encoded and decoded versions, for sampled clips of a latents table."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from videogen.data.curation import encode_jpeg
from videogen.data.datasets.latents_table import LatentsTable
from videogen.data.isolation import IsolatedDecoder
from videogen.data.video import VideoError
from videogen.evaluation.psnr import psnr_db
from videogen.reporting.contact_sheet import evenly_spaced

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

logger = logging.getLogger(__name__)

_MAX_SIDE = 256
_JPEG_QUALITY = 92
_DIFFERENCE_GAIN = 4
_LIMIT_S = 20.0
"""Time limit: a large decoder on a CPU must not delay a finished table."""


@dataclass(frozen=True)
class Reconstruction:
    """One frame, encoded and decoded."""

    clip_id: str
    source: str
    frame: int
    """Index of the frame in its video, in presentation order."""
    psnr_db: float
    latent_std: float
    """Standard deviation of the frame's scaled latents, as the diffusion models see them; should be about 1."""
    pictures: tuple[bytes, bytes, bytes]
    """Source, decoded, and four times their difference, as JPEG."""


def reconstruct(
    uri: str, load_autoencoder: "Callable[[], AutoencoderKL]", num_clips: int = 6, limit_s: float = _LIMIT_S
) -> list[Reconstruction]:
    """Reconstruct the middle frames of evenly spaced clips, each from its largest latents.

    Args:
        uri: a finished table of latents.
        load_autoencoder: returns the VAE that made them.
        num_clips: maximum number of clips; clips whose source is unreadable are left out.
        limit_s: seconds after which no further clip is started.
    """
    table = LatentsTable.open(uri)
    started = time.monotonic()
    vae = load_autoencoder()
    found: list[Reconstruction] = []
    with IsolatedDecoder() as decoder:
        for index in evenly_spaced(len(table), num_clips).tolist():
            if time.monotonic() - started > limit_s:
                logger.info("reconstruction stops after %d clips: the limit of %.0f s is reached", len(found), limit_s)
                break
            try:
                found.append(_reconstruct_clip(table, index, vae, decoder))
            except VideoError as error:
                logger.info("clip %d of %s has no reconstruction: %s", index, uri, error)
    return found


def _reconstruct_clip(
    table: LatentsTable, index: int, vae: "AutoencoderKL", decoder: IsolatedDecoder
) -> Reconstruction:
    name = f"latents_{table.manifest['latent_sizes'][-1]}"
    row = table.row(index, (name, "clip_id", "source", "frame_indices", "width", "height", "decoder"))
    middle = len(row["frame_indices"]) // 2
    frame = int(row["frame_indices"][middle])
    size = table.clip_spec.frame_size(row["width"], row["height"])
    source = decoder.read_frames(row["source"], [frame], size, row["decoder"])[0]
    decoded = _decode(vae, row[name][middle : middle + 1])
    return Reconstruction(
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
        frame: np.ndarray = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
        return frame


def _difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    difference = np.abs(first.astype(np.int16) - second.astype(np.int16)) * _DIFFERENCE_GAIN
    return difference.clip(0, 255).astype(np.uint8)


def _jpeg(frame: np.ndarray) -> bytes:
    if max(frame.shape[:2]) > _MAX_SIDE:
        image = Image.fromarray(frame)
        image.thumbnail((_MAX_SIDE, _MAX_SIDE), Image.Resampling.LANCZOS)
        frame = np.asarray(image)
    return encode_jpeg(frame, _JPEG_QUALITY)
