"""Reference stage: prompt to reference image by a text-to-image pipeline of diffusers (VideoGen, sec. 3.1)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from videogen.config import FrameSize
from videogen.stages.cascade import CascadeConfig
from videogen.stages.component import Component
from videogen.stages.sample import Sample
from videogen.stages.stage import Stage

_DIFFUSERS_UNIT = 8
"""Pixels that diffusers' text-to-image pipelines want sides to be multiples of."""


class ReferenceStage(Stage):
    """Draws the reference image, unless the sample brings its own."""

    consumes: ClassVar = ("prompt", "negative_prompt", "seed", "reference_image")
    produces: ClassVar = ("reference_image",)

    def __init__(self, name: str, parts: Mapping[str, Any], config: CascadeConfig, device: str = "cpu") -> None:
        super().__init__(name, parts, config, device)
        self.pipeline = parts[name].to(self.device)
        self.pipeline.set_progress_bar_config(disable=True)
        self.sampling = config.reference.sampling
        self.resolution = config.resolution

    @classmethod
    def components(cls, name: str) -> dict[str, Component]:
        """Return a complete text-to-image pipeline."""
        options = {"safety_checker": None, "requires_safety_checker": False}
        return {name: Component("stable_diffusion", "StableDiffusionPipeline", module="diffusers", options=options)}

    def run(self, samples: Sequence[Sample]) -> list[Sample]:
        """Return `reference_image`, uint8 (H, W, 3) at the finished video's size: the sample's, if it has one."""
        missing = [sample for sample in samples if sample.get("reference_image") is None]
        size = samples[0].get("frame_size") or (self.resolution, self.resolution)
        drawn = iter(self._draw(missing, FrameSize(*size)) if missing else [])
        return [
            {"reference_image": _fitted(next(drawn) if given is None else np.asarray(given), FrameSize(*size))}
            for given in (sample.get("reference_image") for sample in samples)
        ]

    def _draw(self, samples: Sequence[Sample], size: FrameSize) -> list[np.ndarray]:
        output = self.pipeline(
            **self._drawn_at(size),
            prompt=[sample["prompt"] for sample in samples],
            negative_prompt=[sample.get("negative_prompt") or "" for sample in samples],
            generator=self.seeds(samples),
            num_inference_steps=self.sampling.num_inference_steps,
            guidance_scale=self.sampling.guidance_scale,
            guidance_rescale=self.sampling.guidance_rescale,
            output_type="np",
        )
        return [(image * 255).round().astype(np.uint8) for image in output.images]

    def _drawn_at(self, size: FrameSize) -> dict[str, int]:
        """Return the size to draw at: by default the model's own, else about as many pixels in the video's shape."""
        if size == (self.resolution, self.resolution):
            return {}
        side = self.pipeline.unet.config.sample_size * self.pipeline.vae_scale_factor
        unit = math.lcm(self.pipeline.vae_scale_factor, _DIFFUSERS_UNIT)
        return {
            name: max(1, round(pixels * side / self.resolution / unit)) * unit
            for name, pixels in size._asdict().items()
        }


def _fitted(image: np.ndarray, size: FrameSize) -> np.ndarray:
    """Return the centre of an image (H, W, 3), in the shape of `size` and as large."""
    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    cut_height = max(1, min(height, width * size.height // size.width))
    cut_width = max(1, min(width, height * size.width // size.height))
    top, left = (height - cut_height) // 2, (width - cut_width) // 2
    centre = Image.fromarray(image[top : top + cut_height, left : left + cut_width])
    return np.asarray(centre.resize((size.width, size.height), Image.Resampling.LANCZOS))
