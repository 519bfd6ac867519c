"""Decoder and interpolation against their baselines, in dB on held-out clips.

Both are measured in pixels, on the latents of real clips, so that each number is about one stage only:

- decoder: the temporal decoder beside the frame-wise image decoder, on the same latents;
- interpolation: the interpolate stage beside linear blending, both from every `temporal_factor`-th latent and both
  shown by the same image decoder; the key frames themselves are not counted.
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
    """Mean over clips of the PSNR of each, in dB."""

    num_clips: int
    decoder_psnr_db: float
    image_decoder_psnr_db: float
    interpolation_psnr_db: float
    blend_psnr_db: float
    interpolation_ceiling_psnr_db: float
    """The true middle frames encoded and decoded: what a perfect interpolation would reach."""


class ImageDecoder:
    """The frame-wise image VAE of a model folder: the baseline, and the eye with which latents are looked at."""

    def __init__(self, model_folder: str | Path, device: str = "cpu") -> None:
        from diffusers import AutoencoderKL

        self.device = device
        self.model = AutoencoderKL.from_pretrained(str(Path(model_folder) / "autoencoder")).to(device).eval()

    def _threads(self) -> AbstractContextManager[None]:
        """Compute as stages do: on one thread of a CPU, so that the numbers do not depend on its cores."""
        from videogen.stages.stage import single_thread

        return single_thread() if self.device == "cpu" else nullcontext()

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """Return the latents of uint8 frames (F, H, W, 3) as the diffusion models see them, float32 (F, C, h, w)."""
        import torch

        with torch.inference_mode(), self._threads():
            pixels = torch.from_numpy(frames).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
            means = [self.model.encode(chunk).latent_dist.mean for chunk in pixels.split(8)]
            return (torch.cat(means) * self.model.config.scaling_factor).cpu().numpy()

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Return the frames of such latents, uint8 (F, H, W, 3)."""
        import torch

        if not len(latents):  # attention cannot be of no frame at all
            return np.empty((0, 0, 0, 3), np.uint8)
        with torch.inference_mode(), self._threads():
            scaled = torch.from_numpy(latents).float().to(self.device) / self.model.config.scaling_factor
            return _to_uint8(torch.cat([self.model.decode(chunk).sample for chunk in scaled.split(8)]))


def _to_uint8(pixels: "torch.Tensor") -> np.ndarray:
    """Turn (F, 3, H, W) in [-1, 1] into uint8 (F, H, W, 3)."""
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
    """Measure decode and interpolate on real clips, each uint8 (F, H, W, 3) at the full frame rate; NaN if none is."""
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
    """Return one clip's key latents (F, C, h, w) with linear blends between them."""
    import torch

    from videogen.models.flow import blend

    return blend(torch.from_numpy(keys)[None], factor)[0].numpy()


def overall(parts: Iterable[StagePsnr]) -> StagePsnr:
    """Return the mean over all clips of several corpora; one of which no clip could be read does not count."""
    parts = [part for part in parts if part.num_clips]
    counts = [part.num_clips for part in parts]
    names = [field.name for field in fields(StagePsnr) if field.name != "num_clips"]
    means = [
        float(np.average([getattr(part, name) for part in parts], weights=counts)) if parts else float("nan")
        for name in names
    ]
    return StagePsnr(sum(counts), *means)
