"""Text-to-video pipeline: the whole cascade in one process, as a diffusers pipeline.

    pipe = VideoGenPipeline.from_pretrained("runs/demo/model")
    frames = pipe("a red circle moving left", generator=torch.Generator().manual_seed(7)).frames[0]

It runs the same stage classes as batch generation and the service, and holds the components that they declare.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from PIL import Image

from videogen import storage
from videogen.config import FrameSize
from videogen.errors import UserError
from videogen.stages import CascadeConfig, config_from_dict
from videogen.stages.assembly import build_stages, components, possible_components, run_stages
from videogen.stages.classes import build_network
from videogen.stages.configuration import INDEX, load_cascade_config
from videogen.stages.registry import STAGES
from videogen.stages.sample import Sample, new_sample
from videogen.stages.stage import Stage


@dataclass
class VideoGenPipelineOutput(BaseOutput):
    """Frames and intermediate outputs.

    Attributes:
        frames: "np": uint8 (B, F, H, W, 3); "pil": a list of images for each clip.
        samples: one dict per clip, with reference image and final latents.
        fps: frames per second.
    """

    frames: Any
    samples: list[Sample]
    fps: float


class VideoGenPipeline(DiffusionPipeline):
    """Text to video.

    Args:
        cascade: configuration as `CascadeConfig.model_dump(mode="json")`; stored in `model_index.json`.
        parts: components that the cascade's stages declare, by name.
    """

    # Cascades differ in their components: diffusers is given all names, and `__init__` requires those of this cascade.
    _optional_components: ClassVar[list[str]] = [*possible_components()]
    model_cpu_offload_seq = "->".join(["text_encoder", *(name for name in _optional_components if name in STAGES)])

    def __init__(self, cascade: dict[str, Any] | None = None, **parts: Any) -> None:
        super().__init__()
        config = config_from_dict(cascade or {})
        missing = [name for name in components(config) if parts.get(name) is None]
        if missing:
            raise UserError(f"The model lacks {', '.join(missing)}: train them with jobs/train_cascade.py.")
        self.register_modules(**{name: parts.get(name) for name in self._optional_components})
        self.register_to_config(cascade=cascade)
        self.cascade = config

    # diffusers reads the component names from the signature.
    __init__.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD),
            *(
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
                for name in (*_optional_components, "cascade")
            ),
        ]
    )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Load a pipeline from a local model folder, or from the hub, as diffusers' own method does.

        Raises:
            UserError: the folder is not a finished model, or was written by an earlier release.
        """
        folder = str(pretrained_model_name_or_path)
        if Path(folder).is_dir():
            _require_current(folder)
        pipeline: Self = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        return pipeline

    def stages(self) -> list[Stage]:
        """Return the stages in order, with the pipeline's components and device."""
        return build_stages(self.cascade, self.components, str(self.device))

    def __call__(
        self,
        prompt: str | Sequence[str],
        negative_prompt: str | Sequence[str] | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        seed: int | Sequence[int] | None = None,
        reference_image: np.ndarray | Image.Image | None = None,
        output_type: str = "np",
        height: int | None = None,
        width: int | None = None,
    ) -> VideoGenPipelineOutput:
        """Generate one clip per prompt.

        Args:
            prompt: one or several prompts.
            negative_prompt: content to avoid; one for all prompts, or one per prompt.
            generator: only its initial seed is used, so that a clip depends on prompt and seed alone; one generator for
                several prompts gives consecutive seeds.
            seed: alternative to `generator`; random if neither is given.
            reference_image: image to start from instead of a generated one.
            output_type: "np" or "pil".
            height, width: frame size in pixels; the preset's square by default. Quality is only expected at the sizes
                of the training data, see `cascade.frame_sizes`.

        Raises:
            UserError: an empty prompt, lists of different lengths, an unknown output type, sides that do not divide.
        """
        if output_type not in ("np", "pil"):
            raise UserError(f"output_type is {output_type!r}, but it must be 'np' or 'pil'.")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        negatives = _one_each(negative_prompt, len(prompts), "negative_prompt")
        seeds = _seeds(generator, seed, len(prompts))
        image = (
            np.asarray(reference_image.convert("RGB")) if isinstance(reference_image, Image.Image) else reference_image
        )
        samples = [new_sample(p, s, n, image) for p, s, n in zip(prompts, seeds, negatives, strict=True)]
        if height is not None or width is not None:
            samples = [{**sample, "frame_size": self._frame_size(height, width)} for sample in samples]
        stages = self.stages()
        results = run_stages(self.progress_bar(stages) if len(prompts) else stages, samples)
        frames: Any = np.stack([result["frames"] for result in results])
        if output_type == "pil":
            frames = [[Image.fromarray(frame) for frame in clip] for clip in frames]
        return VideoGenPipelineOutput(frames=frames, samples=results, fps=self.cascade.output_fps)

    def _frame_size(self, height: int | None, width: int | None) -> FrameSize:
        multiple, side = self.cascade.frame_multiple, self.cascade.resolution
        size = FrameSize(side if height is None else height, side if width is None else width)
        if min(size) < multiple or size.height % multiple or size.width % multiple:
            raise UserError(f"Frames of {size} pixels are requested, but both sides must be multiples of {multiple}.")
        return size


def _require_current(folder: str) -> None:
    """Refuse a model folder whose index names classes of an earlier release, which diffusers could not import."""
    wanted = components(load_cascade_config(folder))
    index = storage.read_json(storage.join(folder, INDEX))
    for name, component in wanted.items():
        # Classes of diffusers and transformers may be others: a model may be saved with another scheduler.
        is_ours = component.package.startswith("videogen.")
        if is_ours and index.get(name) != [component.package, component.class_name]:
            raise UserError(
                f"{folder!r} was written by an earlier release ({INDEX} has {index.get(name)} for {name!r}): run "
                f"jobs/train_cascade.py again with the same options, which keeps finished stages."
            )


def assemble(folder: str, config: CascadeConfig) -> None:
    """Write `model_index.json`, which turns a folder of trained components into a pipeline.

    Args:
        folder: local path or URI with one sub-folder per component.
        config: cascade configuration.

    Raises:
        UserError: a component is missing.
    """
    index: dict[str, Any] = {"_class_name": ["videogen.pipeline", "VideoGenPipeline"]}
    index |= {name: [None, None] for name in VideoGenPipeline._optional_components}
    for name, component in components(config).items():
        if not storage.exists(storage.join(folder, name)):
            raise UserError(f"The model {folder!r} has no {name!r} yet: train it with --stages {name}.")
        index[name] = [component.package, component.class_name]
    index["cascade"] = config.model_dump(mode="json")
    storage.write_json(storage.join(folder, "model_index.json"), index)


def save_random(folder: str, config: CascadeConfig, seed: int = 0) -> None:
    """Write an untrained but complete model to a local folder, for smoke tests."""
    from diffusers import StableDiffusionPipeline

    from videogen.diffusion.schedule import build_scheduler
    from videogen.stages.text.network import build_text_encoder, build_tokenizer

    tokenizer = build_tokenizer(config.text)
    frozen = {
        "tokenizer": tokenizer,
        "text_encoder": build_text_encoder(config.text, tokenizer, config.seed),
        "scheduler": build_scheduler(config.diffusion),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        autoencoder = build_network(config, "autoencoder")
        names = [name for name in components(config) if name not in (*frozen, "autoencoder")]
        networks = {"autoencoder": autoencoder} | {name: build_network(config, name) for name in names}
    networks["decode"] = type(networks["decode"]).from_image_autoencoder(autoencoder)
    networks["reference"] = StableDiffusionPipeline(
        vae=autoencoder,
        unet=networks["reference"],
        **frozen,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for name, part in {**frozen, **networks}.items():
        part.save_pretrained(Path(folder) / name)
    assemble(folder, config)


def _one_each(value: str | Sequence[str] | None, count: int, name: str) -> list[str | None]:
    values: list[str | None] = [value] * count if value is None or isinstance(value, str) else list(value)
    if len(values) != count:
        raise UserError(f"{name} has {len(values)} entries for {count} prompts: give one, or one per prompt.")
    return values


def _seeds(
    generator: torch.Generator | Sequence[torch.Generator] | None, seed: int | Sequence[int] | None, count: int
) -> list[int]:
    if generator is not None and seed is not None:
        raise UserError("Both generator and seed are given: give one of them.")
    given: Any = seed
    if isinstance(generator, torch.Generator):
        given = generator.initial_seed()
    elif generator is not None:
        given = [item.initial_seed() for item in generator]
    if given is None:
        given = int(torch.randint(2**31, ()))
    seeds = [int(given) + index for index in range(count)] if isinstance(given, int) else [int(s) for s in given]
    if len(seeds) != count:
        raise UserError(f"{len(seeds)} seeds for {count} prompts: give one, or one per prompt.")
    return seeds
