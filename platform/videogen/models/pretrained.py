"""Loading components in the Stable Diffusion layout from a folder, an `s3://` URI or a hub id."""

from typing import Any, TypeVar

from videogen import storage
from videogen.errors import UserError

Component = TypeVar("Component")


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
                return _load(kind, str(folder), **options)
        return _load(kind, source, subfolder=subfolder, **options)
    except OSError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"Cannot load {subfolder!r} from {source!r} ({reason}): give a local folder or s3:// URI in the Stable "
            f"Diffusion layout, or a hub id that this machine can reach."
        ) from error


def _load(kind: Any, source: str, **options: Any) -> Any:
    # Tokenizers hold no weights and do not know the option.
    safe = {"use_safetensors": True} if hasattr(kind, "parameters") else {}
    return kind.from_pretrained(source, **safe, **options)
