"""The parts of a model that are not trained here: built from the preset, copied, or off the shelf."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from videogen import storage
from videogen.config import CascadeConfig
from videogen.errors import UserError

_WANTED = ("*.json", "*.txt", "*.safetensors", "*.model")
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
        from videogen.models.text import build_text_encoder, build_tokenizer

        tokenizer = build_tokenizer(config.text)
        tokenizer.save_pretrained(f"{folder}/tokenizer")
        build_text_encoder(config.text, tokenizer, config.seed).save_pretrained(f"{folder}/text_encoder")
        for name in TEXT_PARTS:
            storage.upload(f"{folder}/{name}", storage.join(output_uri, name))


def copy_component(source: str, name: str, target: str) -> None:
    """Copy one folder of a model byte by byte, so that its fingerprint stays what it is.

    Args:
        source: model folder, URI or hub id.
        name: sub-folder in it.
        target: folder to fill.
    """
    with _component(source, name) as folder:
        storage.upload(folder, target)


def write_reference(source: str, output_uri: str) -> None:
    """Write an off-the-shelf text-to-image pipeline into `reference/`."""
    from diffusers import StableDiffusionPipeline

    with _component(source, "") as folder, tempfile.TemporaryDirectory(prefix="videogen-reference-") as target:
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder, safety_checker=None, feature_extractor=None, requires_safety_checker=False, use_safetensors=True
        )
        pipeline.save_pretrained(target)
        storage.upload(target, storage.join(output_uri, "reference"))


def is_hub_id(source: str) -> bool:
    """Tell whether `source` can only be the name of a model on the hub."""
    return (
        not storage.is_remote(source)
        and source.count("/") == 1
        and source[0] not in "./~"
        and not storage.exists(source)
    )


@contextlib.contextmanager
def _component(source: str, name: str) -> Iterator[Path]:
    if not is_hub_id(source):
        with storage.local_copy(storage.join(source, name) if name else source) as folder:
            yield folder
        return
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = [f"{name}/{pattern}" for pattern in _WANTED] if name else list(_WANTED)
    try:
        yield Path(snapshot_download(source, allow_patterns=patterns)) / name
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise UserError(
            f"{source!r} is neither a folder nor a model that the hub gives out ({str(error).splitlines()[0]}): "
            f"check the spelling, or give a folder or s3:// URI."
        ) from error
