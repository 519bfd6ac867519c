"""Components of a model folder that are not trained: built from the preset, copied, or off the shelf."""

import tempfile

from videogen import storage
from videogen.models.pretrained import copy_component, open_component
from videogen.stages.cascade import CascadeConfig
from videogen.stages.classes import build_network

TEXT_PARTS = ("tokenizer", "text_encoder")


def write_text(config: CascadeConfig, output_uri: str, source: str | None) -> None:
    """Write tokenizer, text encoder and noise schedule; the first two are copied from `source` if it is given."""
    from videogen.diffusion.schedule import build_scheduler

    with tempfile.TemporaryDirectory(prefix="videogen-text-") as folder:
        build_scheduler(config.diffusion).save_pretrained(f"{folder}/scheduler")
        storage.upload(f"{folder}/scheduler", storage.join(output_uri, "scheduler"))
        source = source or config.text.pretrained
        if source:
            for name in TEXT_PARTS:
                copy_component(source, name, storage.join(output_uri, name))
            return
        from videogen.stages.text.network import build_text_encoder, build_tokenizer

        tokenizer = build_tokenizer(config.text)
        tokenizer.save_pretrained(f"{folder}/tokenizer")
        build_text_encoder(config.text, tokenizer, config.seed).save_pretrained(f"{folder}/text_encoder")
        for name in TEXT_PARTS:
            storage.upload(f"{folder}/{name}", storage.join(output_uri, name))


def write_fresh(config: CascadeConfig, stage: str, output_uri: str) -> None:
    """Write a stage's network as it is before training, drawn from the configuration's seed."""
    import torch

    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory(prefix="videogen-fresh-") as folder:
        torch.manual_seed(config.seed)
        build_network(config, stage).save_pretrained(folder)
        storage.upload(folder, storage.join(output_uri, stage))


def write_reference(source: str, output_uri: str) -> None:
    """Write an off-the-shelf text-to-image pipeline into `reference/`."""
    from diffusers import StableDiffusionPipeline

    with open_component(source, "") as folder, tempfile.TemporaryDirectory(prefix="videogen-reference-") as target:
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder, safety_checker=None, feature_extractor=None, requires_safety_checker=False, use_safetensors=True
        )
        pipeline.save_pretrained(target)
        storage.upload(target, storage.join(output_uri, "reference"))
