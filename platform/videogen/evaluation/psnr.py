"""PSNR of the decoder and of interpolation against their baselines, on held-out clips.

Both are measured in pixels on the latents of real clips, so each number depends on one stage only:

- decoder: temporal decoder against frame-wise image decoder, on the same latents;
- interpolation: interpolate stage against linear blending, both from every `temporal_factor`-th latent and both decoded
  by the image decoder; key frames are not counted.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class StagePsnr:
    """Mean PSNR over clips, in dB."""

    num_clips: int
    decoder_psnr_db: float
    image_decoder_psnr_db: float
    interpolation_psnr_db: float
    blend_psnr_db: float
    interpolation_ceiling_psnr_db: float
    """True middle frames, encoded and decoded: the PSNR of a perfect interpolation."""


class ImageDecoder:
    """Frame-wise image VAE of a model folder: the decoder's baseline, and the viewer of intermediate latents."""

    def __init__(self, model_folder: str | Path, device: str = "cpu") -> None:
        from diffusers import AutoencoderKL

        self.device = device
        self.model = AutoencoderKL.from_pretrained(str(Path(model_folder) / "autoencoder")).to(device).eval()

    def _threads(self) -> AbstractContextManager[None]:
        """Use one CPU thread, as stages do, so that results do not depend on the number of cores."""
        from videogen.stages.stage import single_thread

        return single_thread() if self.device == "cpu" else nullcontext()

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """Return the scaled latents of uint8 frames (F, H, W, 3), float32 (F, C, h, w)."""
        import torch

        with torch.inference_mode(), self._threads():
            pixels = torch.from_numpy(frames).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
            means = [self.model.encode(chunk).latent_dist.mean for chunk in torch.split(pixels, 8)]
            latents: np.ndarray = (torch.cat(means) * self.model.config.scaling_factor).cpu().numpy()
            return latents

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Return the frames of scaled latents (F, C, h, w), uint8 (F, H, W, 3)."""
        import torch

        if not len(latents):  # attention fails on an empty batch
            return np.empty((0, 0, 0, 3), np.uint8)
        with torch.inference_mode(), self._threads():
            scaled = torch.from_numpy(latents).float().to(self.device) / self.model.config.scaling_factor
            return _to_uint8(torch.cat([self.model.decode(chunk).sample for chunk in torch.split(scaled, 8)]))


def _to_uint8(pixels: "torch.Tensor") -> np.ndarray:
    """Convert (F, 3, H, W) in [-1, 1] to uint8 (F, H, W, 3)."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def psnr_db(frames: np.ndarray, truth: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of one clip, uint8 (F, H, W, 3), in dB."""
    import torch

    if not frames.size:
        return float("nan")
    from torchmetrics.functional.image import peak_signal_noise_ratio

    pair = [torch.from_numpy(np.ascontiguousarray(values)).double() for values in (frames, truth)]
    return float(peak_signal_noise_ratio(pair[0], pair[1], data_range=(0.0, 255.0)))


def measure_stages(
    clips: Iterable[np.ndarray], model_folder: str | Path, temporal_factor: int, device: str = "cpu"
) -> StagePsnr:
    """Measure decode and interpolate on real clips, uint8 (F, H, W, 3) at the full frame rate; NaN without clips."""
    from videogen.stages import load_stage

    image = ImageDecoder(model_folder, device)
    decode = load_stage("decode", str(model_folder), device=device)
    interpolate = load_stage("interpolate", str(model_folder), device=device)
    rows = []
    for truth in clips:
        latents = image.encode(truth)
        frame_wise = image.decode(latents)
        middle = np.arange(len(truth)) % temporal_factor != 0
        keys = latents[::temporal_factor]
        interpolated = interpolate([{"latents": keys}])[0]["latents"]
        blended = _blend(keys, temporal_factor)
        rows.append(
            (
                psnr_db(decode([{"latents": latents}])[0]["frames"], truth),
                psnr_db(frame_wise, truth),
                psnr_db(image.decode(interpolated[middle]), truth[middle]),
                psnr_db(image.decode(blended[middle]), truth[middle]),
                psnr_db(frame_wise[middle], truth[middle]),
            )
        )
    means = np.mean(rows, axis=0) if rows else np.full(len(fields(StagePsnr)) - 1, np.nan)
    return StagePsnr(len(rows), *(float(mean) for mean in means))


def _blend(keys: np.ndarray, factor: int) -> np.ndarray:
    """Return the linear interpolation of one clip's key latents (F, C, h, w)."""
    import torch

    from videogen.stages.interpolate.network import blend

    return blend(torch.from_numpy(keys)[None], factor)[0].numpy()


def overall(parts: Iterable[StagePsnr]) -> StagePsnr:
    """Return the mean over all clips of several corpora; corpora without readable clips are ignored."""
    parts = [part for part in parts if part.num_clips]
    counts = [part.num_clips for part in parts]
    names = [field.name for field in fields(StagePsnr) if field.name != "num_clips"]
    means = [
        float(np.average([getattr(part, name) for part in parts], weights=counts)) if parts else float("nan")
        for name in names
    ]
    return StagePsnr(sum(counts), *means)
