"""The parts of a model that are not trained here: built from the preset, copied, or off the shelf."""

import contextlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from videogen import storage
from videogen.config import CascadeConfig
from videogen.errors import UserError

_WANTED = ("*.json", "*.txt", "*.safetensors", "*.model")
TEXT_PARTS = ("tokenizer", "text_encoder")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


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


def write_fresh(config: CascadeConfig, stage: str, output_uri: str) -> None:
    """Write a stage's network as it is before training, drawn from the configuration's seed."""
    import torch

    from videogen.models.networks import build_network

    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory(prefix="videogen-fresh-") as folder:
        torch.manual_seed(config.seed)
        build_network(config, stage).save_pretrained(folder)
        storage.upload(folder, storage.join(output_uri, stage))


def copy_component(source: str, name: str, target: str) -> None:
    """Copy one folder of a model byte by byte, so that its fingerprint stays what it is.

    Args:
        source: model folder, URI or hub id.
        name: sub-folder in it.
        target: folder to fill.
    """
    with component(source, name) as folder:
        storage.upload(folder, target)


def write_reference(source: str, output_uri: str) -> None:
    """Write an off-the-shelf text-to-image pipeline into `reference/`."""
    from diffusers import StableDiffusionPipeline

    with component(source, "") as folder, tempfile.TemporaryDirectory(prefix="videogen-reference-") as target:
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder, safety_checker=None, feature_extractor=None, requires_safety_checker=False, use_safetensors=True
        )
        pipeline.save_pretrained(target)
        storage.upload(target, storage.join(output_uri, "reference"))


def is_hub_id(source: str) -> bool:
    """Tell whether `source` can only be the name of a model on the hub: `owner/name`, with no folder `owner` here."""
    owner = source.partition("/")[0]
    return bool(_HUB_ID.fullmatch(source)) and owner not in (".", "..") and not Path(owner).exists()


def hub_folder(model: str, patterns: Sequence[str], what: str = "Model") -> str:
    """Return the local folder of a model on the hub; its files are fetched once per machine into the hub's own cache.

    Args:
        model: hub id.
        patterns: the files that are wanted.
        what: names it for the reader of an error.

    Raises:
        UserError: the hub does not give it out, or cannot be reached.
    """
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(model, allow_patterns=list(patterns))
    except (OSError, ValueError) as error:  # the hub's own errors, of the network and of the name, derive from these
        reason = str(error).strip().splitlines()[0].rstrip(".:")
        raise UserError(
            f"{what} {model!r} is neither a folder nor a model that the hub gives out ({reason}): check the spelling, "
            f"or give a folder or s3:// URI."
        ) from error


def require_parts(source: str, names: Sequence[str], what: str) -> None:
    """Raise `UserError` unless the model `source` (folder, URI or hub id) has all the sub-folders `names`."""
    if is_hub_id(source):
        # Configurations alone: it is the name that may be wrong, and weights are fetched where they are used.
        folder = hub_folder(source, [f"{name}/config.json" for name in names], what)
    else:
        folder = source
        storage.require_readable(folder, what)
    for name in names:
        if not storage.exists(storage.join(folder, name, "config.json")):
            raise UserError(
                f"{what} {source!r} has no folder {name!r} with a config.json: give a model in the Stable Diffusion "
                f"layout (unet/, vae/, text_encoder/, tokenizer/)."
            )


@contextlib.contextmanager
def component(source: str, name: str) -> Iterator[Path]:
    """Yield a local folder with one component of a model (folder, URI or hub id); the whole model if `name` is ""."""
    if not is_hub_id(source):
        with storage.local_copy(storage.join(source, name) if name else source) as folder:
            yield folder
        return
    patterns = [f"{name}/{pattern}" for pattern in _WANTED] if name else list(_WANTED)
    yield Path(hub_folder(source, patterns)) / name
