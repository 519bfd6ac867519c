"""Prompt to reference image, by any text-to-image pipeline in the Stable Diffusion layout (VideoGen, sec. 3.1)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from videogen.config import CascadeConfig
from videogen.stages.component import Component
from videogen.stages.stage import Sample, Stage


class ReferenceStage(Stage):
    """Draws the reference image, unless the sample brings its own."""

    kind: ClassVar = "reference"
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
        """Return `reference_image`, uint8 (H, W, 3) at the finished video's size."""
        missing = [sample for sample in samples if sample.get("reference_image") is None]
        drawn = iter(self._draw(missing) if missing else [])
        return [
            {"reference_image": self._fit(next(drawn) if given is None else np.asarray(given))}
            for given in (sample.get("reference_image") for sample in samples)
        ]

    def _draw(self, samples: Sequence[Sample]) -> list[np.ndarray]:
        output = self.pipeline(
            prompt=[sample["prompt"] for sample in samples],
            negative_prompt=[sample.get("negative_prompt") or "" for sample in samples],
            generator=self.seeds(samples),
            num_inference_steps=self.sampling.num_inference_steps,
            guidance_scale=self.sampling.guidance_scale,
            guidance_rescale=self.sampling.guidance_rescale,
            output_type="np",
        )
        return [(image * 255).round().astype(np.uint8) for image in output.images]

    def _fit(self, image: np.ndarray) -> np.ndarray:
        """Return the image's centre square at the video's size."""
        height, width = image.shape[:2]
        if (height, width) == (self.resolution, self.resolution):
            return image
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = Image.fromarray(image[top : top + side, left : left + side])
        return np.asarray(square.resize((self.resolution, self.resolution), Image.Resampling.LANCZOS))
