"""Prompt to reference image, by any text-to-image pipeline in the Stable Diffusion layout (VideoGen, sec. 3.1)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from diffusers import StableDiffusionPipeline
from PIL import Image

from videogen.config.schema import SamplingConfig
from videogen.stages.configuration import load_cascade_config
from videogen.stages.stage import Sample, Stage


class ReferenceStage(Stage):
    """Draws the reference image, unless the sample brings its own."""

    kind: ClassVar = "reference"
    consumes: ClassVar = ("prompt", "negative_prompt", "seed", "reference_image")
    produces: ClassVar = ("reference_image",)

    def __init__(
        self, name: str, pipeline: Any, sampling: SamplingConfig, resolution: int, device: str = "cpu"
    ) -> None:
        super().__init__(name, device)
        self.pipeline = pipeline.to(self.device)
        self.pipeline.set_progress_bar_config(disable=True)
        self.sampling = sampling
        self.resolution = resolution

    @classmethod
    def from_pretrained(cls, folder: str, name: str = "reference", device: str = "cpu") -> Self:
        """Load `reference/`, a complete text-to-image pipeline."""
        config = load_cascade_config(folder)
        pipeline = StableDiffusionPipeline.from_pretrained(
            Path(folder) / "reference", safety_checker=None, requires_safety_checker=False, use_safetensors=True
        )
        return cls(name, pipeline, config.reference.sampling, config.resolution, device)

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
