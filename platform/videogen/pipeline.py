"""`VideoGenPipeline`: the whole cascade in one process, as a diffusers pipeline.

    pipe = VideoGenPipeline.from_pretrained("runs/demo/model")
    frames = pipe("a red circle moving left", generator=torch.Generator().manual_seed(7)).frames[0]

It runs the same stage classes as batch generation and the service do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from PIL import Image

from videogen import storage
from videogen.config import CascadeConfig, config_from_dict
from videogen.errors import UserError
from videogen.models.networks import build_network
from videogen.stages.decode import DecodeStage
from videogen.stages.interpolate import InterpolateStage
from videogen.stages.reference import ReferenceStage
from videogen.stages.registry import run_stages
from videogen.stages.sample import Sample, new_sample
from videogen.stages.stage import Stage
from videogen.stages.text import TextStage
from videogen.stages.video_diffusion import BaseStage, UpsampleStage

MAX_UPSAMPLE_STAGES = 4


@dataclass
class VideoGenPipelineOutput(BaseOutput):
    """Frames, and everything that the stages made on the way.

    Attributes:
        frames: "np": uint8 (B, F, H, W, 3); "pil": a list of images for each clip.
        samples: one dict a clip, with reference image and final latents.
        fps: frames a second.
    """

    frames: Any
    samples: list[Sample]
    fps: float


class VideoGenPipeline(DiffusionPipeline):
    """Text to video.

    Args:
        cascade: the configuration, as `CascadeConfig.model_dump(mode="json")`; kept in `model_index.json`.
        reference: any text-to-image pipeline in the Stable Diffusion layout.
        Others: the components of the stages of the same name.
    """

    model_cpu_offload_seq = "text_encoder->reference->base->upsample->interpolate->decode"
    _optional_components: ClassVar[list[str]] = [
        "upsample",
        *(f"upsample_{index}" for index in range(1, MAX_UPSAMPLE_STAGES + 1)),
    ]

    def __init__(
        self,
        tokenizer: Any,
        text_encoder: Any,
        autoencoder: Any,
        reference: Any,
        scheduler: Any,
        base: Any,
        interpolate: Any,
        decode: Any,
        upsample: Any = None,
        upsample_1: Any = None,
        upsample_2: Any = None,
        upsample_3: Any = None,
        upsample_4: Any = None,
        cascade: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            autoencoder=autoencoder,
            reference=reference,
            scheduler=scheduler,
            base=base,
            interpolate=interpolate,
            decode=decode,
            upsample=upsample,
            upsample_1=upsample_1,
            upsample_2=upsample_2,
            upsample_3=upsample_3,
            upsample_4=upsample_4,
        )
        self.register_to_config(cascade=cascade)
        self.cascade = config_from_dict(cascade or {})

    def stages(self) -> list[Stage]:
        """Return the stages in order, on the pipeline's device, around the pipeline's components."""
        config, device = self.cascade, str(self.device)
        stages: list[Stage] = []
        for name in config.stage_names():
            section = config.stage_config(name)
            if name == "text":
                stages.append(TextStage(name, self.tokenizer, self.text_encoder, device))
            elif name == "reference":
                stages.append(ReferenceStage(name, self.reference, section.sampling, config.resolution, device))
            elif name == "interpolate":
                stages.append(InterpolateStage(name, self.interpolate, config.temporal_factor, device))
            elif name == "decode":
                stages.append(DecodeStage(name, self.decode, section, device))
            else:
                kind = BaseStage if name == "base" else UpsampleStage
                parts = (getattr(self, name), self.scheduler, self.autoencoder, section)
                stages.append(kind(name, *parts, config.num_frames, config.fps, device))
        return stages

    def __call__(
        self,
        prompt: str | Sequence[str],
        negative_prompt: str | Sequence[str] | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        seed: int | Sequence[int] | None = None,
        reference_image: np.ndarray | Image.Image | None = None,
        output_type: str = "np",
    ) -> VideoGenPipelineOutput:
        """Generate one clip a prompt.

        Args:
            prompt: one or several prompts.
            negative_prompt: what to avoid; one for all, or one a prompt.
            generator: its initial seed is used, so that a clip depends on nothing but prompt and seed; one generator
                for several prompts gives the seeds that follow one another.
            seed: the same, as a number; drawn at random without both.
            reference_image: start from this image instead of a drawn one.
            output_type: "np" or "pil".

        Raises:
            UserError: an empty prompt, lists of different lengths, an unknown output type.
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
        stages = self.stages()
        results = run_stages(self.progress_bar(stages) if len(prompts) else stages, samples)
        frames: Any = np.stack([result["frames"] for result in results])
        if output_type == "pil":
            frames = [[Image.fromarray(frame) for frame in clip] for clip in frames]
        return VideoGenPipelineOutput(frames=frames, samples=results, fps=self.cascade.output_fps)


def assemble(folder: str, config: CascadeConfig) -> None:
    """Write `model_index.json`, which makes a folder of finished components a pipeline.

    Args:
        folder: local path or URI with one sub-folder a component.
        config: the cascade.

    Raises:
        UserError: a component is missing.
    """
    index: dict[str, Any] = {"_class_name": ["videogen.pipeline", "VideoGenPipeline"]}
    for name, (library, kind) in _components(config).items():
        if kind is not None and not storage.exists(storage.join(folder, name)):
            raise UserError(f"The model {folder!r} has no {name!r} yet: train it with --stages {name}.")
        index[name] = [library, kind]
    index["cascade"] = config.model_dump(mode="json")
    storage.write_json(storage.join(folder, "model_index.json"), index)


def save_random(folder: str, config: CascadeConfig, seed: int = 0) -> None:
    """Write an untrained but complete model to a local folder: for smoke tests of everything around the weights."""
    from diffusers import StableDiffusionPipeline

    from videogen.diffusion.schedule import build_scheduler
    from videogen.models.text import build_text_encoder, build_tokenizer

    root = Path(folder)
    tokenizer = build_tokenizer(config.text)
    text_encoder = build_text_encoder(config.text, tokenizer, config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = {name: build_network(config, name) for name in ("autoencoder", *config.stage_names()[1:])}
    networks["decode"] = type(networks["decode"]).from_image_autoencoder(networks["autoencoder"])
    scheduler = build_scheduler(config.diffusion)
    reference = StableDiffusionPipeline(
        vae=networks["autoencoder"],
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=networks.pop("reference"),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    parts = {"tokenizer": tokenizer, "text_encoder": text_encoder, "scheduler": scheduler, "reference": reference}
    for name, part in {**parts, **networks}.items():
        part.save_pretrained(root / name)
    assemble(folder, config)


def _components(config: CascadeConfig) -> dict[str, tuple[str | None, str | None]]:
    """Return (library, class name) of every component, as diffusers writes them in `model_index.json`."""
    components: dict[str, tuple[str | None, str | None]] = {
        "tokenizer": ("transformers", "CLIPTokenizer"),
        "text_encoder": ("transformers", "CLIPTextModel"),
        "scheduler": ("diffusers", "UniPCMultistepScheduler"),
        "autoencoder": ("diffusers", "AutoencoderKL"),
        "reference": ("stable_diffusion", "StableDiffusionPipeline"),
        "interpolate": ("videogen.models.flow", "FlowInterpolator"),
        "decode": ("videogen.models.autoencoder", "VideoAutoencoder"),
    }
    for name in VideoGenPipeline._optional_components:
        components[name] = (None, None)
    for name in config.diffusion_stages():
        components[name] = ("videogen.models.unet", "VideoUNet")
    return components


def _one_each(value: str | Sequence[str] | None, count: int, name: str) -> list[str | None]:
    values: list[str | None] = [value] * count if value is None or isinstance(value, str) else list(value)
    if len(values) != count:
        raise UserError(f"{name} has {len(values)} entries for {count} prompts: give one, or one a prompt.")
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
        raise UserError(f"{len(seeds)} seeds for {count} prompts: give one, or one a prompt.")
    return seeds
