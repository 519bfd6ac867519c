"""Components in the Stable Diffusion layout, read from a folder, an `s3://` URI or a hub id."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from videogen import storage
from videogen.errors import UserError

Component = TypeVar("Component")

_WANTED = ("*.json", "*.txt", "*.safetensors", "*.model")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def load_component(kind: type[Component], source: str, subfolder: str, **options: Any) -> Component:
    """Return the component in `source/subfolder` by its class's `from_pretrained`; safetensors only.

    Args:
        kind: the class.
        source: folder, URI or hub id.
        subfolder: of the component.
        options: further arguments of `from_pretrained`.

    Raises:
        UserError: nothing can be loaded from there.
    """
    try:
        if storage.is_remote(source) or storage.exists(source):
            if not storage.exists(storage.join(source, subfolder)):
                raise UserError(
                    f"{source!r} has no folder {subfolder!r}: give a folder in the Stable Diffusion layout "
                    f"(unet/, vae/, text_encoder/, tokenizer/)."
                )
            with storage.local_copy(storage.join(source, subfolder)) as folder:
                component: Component = _load(kind, str(folder), **options)
        else:
            component = _load(kind, source, subfolder=subfolder, **options)
    except OSError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"Cannot load {subfolder!r} from {source!r} ({reason}): give a local folder or s3:// URI in the Stable "
            f"Diffusion layout, or a hub id that this machine can reach."
        ) from error
    return component


def _load(kind: Any, source: str, **options: Any) -> Any:
    # Tokenizers have no weights and do not accept the option.
    safe = {"use_safetensors": True} if hasattr(kind, "parameters") else {}
    return kind.from_pretrained(source, **safe, **options)


def is_hub_id(source: str) -> bool:
    """Return whether `source` can only be the name of a model on the hub: `owner/name`, with no folder `owner` here."""
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
            f"{what} {model!r} is neither a folder nor a model available on the hub ({reason}): check the spelling, "
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
def open_component(source: str, name: str) -> Iterator[Path]:
    """Yield a local folder with one component of a model (folder, URI or hub id); the whole model if `name` is ""."""
    if not is_hub_id(source):
        with storage.local_copy(storage.join(source, name) if name else source) as folder:
            yield folder
        return
    patterns = [f"{name}/{pattern}" for pattern in _WANTED] if name else list(_WANTED)
    yield Path(hub_folder(source, patterns)) / name


def copy_component(source: str, name: str, target: str) -> None:
    """Copy one folder of a model byte by byte, so that its fingerprint stays what it is.

    Args:
        source: model folder, URI or hub id.
        name: sub-folder in it.
        target: folder to fill.
    """
    with open_component(source, name) as folder:
        storage.upload(folder, target)
