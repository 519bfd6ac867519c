"""User-provided model weights: validation, loading and fingerprint."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from videogen import storage
from videogen.errors import UserError

_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")


@contextlib.contextmanager
def weights_folder(uri: str, what: str) -> Iterator[Path]:
    """Yield a local copy of a folder that contains safetensors.

    Args:
        uri: the folder, on disk or on S3.
        what: names it in error messages, e.g. "Captioner".

    Raises:
        UserError: unreadable, or no safetensors; pickled weights are refused because loading them can run code.
    """
    storage.require_readable(uri, what)
    with storage.local_copy(uri) as folder:
        if not folder.is_dir():
            raise UserError(f"{what} {uri!r} is a file: give the folder that `save_pretrained` wrote.")
        names = sorted(item.name for item in folder.iterdir())
        if not any(name.endswith(".safetensors") for name in names):
            pickled = [name for name in names if name.endswith(_PICKLES)]
            if pickled:
                raise UserError(
                    f"{what} {uri!r} holds pickled weights ({pickled[0]}), which can run code when they are loaded: "
                    f"save them as safetensors."
                )
            raise UserError(f"{what} {uri!r} holds no weights: a file that ends in .safetensors is expected.")
        yield folder


def require_type(folder: Path, uri: str, what: str, types: Sequence[str]) -> str:
    """Return the type of the transformers model in a folder; raise `UserError` unless it is one of `types`."""
    path = folder / "config.json"
    try:
        found = json.loads(path.read_text())["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if found is None:
        raise UserError(f"{what} {uri!r} has no config.json that names a model_type: save it with `save_pretrained`.")
    if found not in types:
        raise UserError(f"{what} {uri!r} is a model of type {found!r}: one of {', '.join(types)} is expected.")
    return str(found)


def require_processor(folder: Path, uri: str, what: str) -> None:
    """Raise `UserError` unless the folder contains a processor for the model's inputs."""
    if not any((folder / name).is_file() for name in _PROCESSORS):
        raise _no_processor(uri, what)


def _no_processor(uri: str, what: str) -> UserError:
    return UserError(f"{what} {uri!r} has no preprocessor beside its weights: save its processor there too.")


def load_model(model_class: Any, folder: Path, uri: str, what: str, device: str) -> Any:
    """Load a transformers model for inference in float32, with every weight from the folder.

    Raises:
        UserError: weights are missing or do not fit the configuration.
    """
    import torch

    try:
        model, report = model_class.from_pretrained(
            str(folder),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            dtype=torch.float32,
        )
    except Exception as error:  # transformers has no common base class for its errors
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"{what} {uri!r} cannot be loaded ({reason.rstrip('.')}): check that the folder is complete."
        ) from error
    # transformers initialises missing weights randomly.
    missing = sorted({*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])})
    if missing:
        raise UserError(
            f"{what} {uri!r} lacks the weight {missing[0]!r} and {len(missing) - 1} more: save the whole model."
        )
    return model.to(device).eval()


def load_processor(processor_class: Any, folder: Path, uri: str, what: str) -> Any:
    """Load the processor of a model's inputs.

    Raises:
        UserError: there is none.
    """
    try:
        return processor_class.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _no_processor(uri, what) from error


def fingerprint(uri: str, what: str = "Weights") -> str:
    """Return a hash of weights and all settings beside them, independent of their location: 16 hexadecimal digits.

    Raises:
        UserError: as `weights_folder`.
    """
    digest = hashlib.sha256()
    with weights_folder(uri, what) as folder:
        for path in sorted(item for item in folder.iterdir() if item.suffix in (".safetensors", ".json", ".txt")):
            digest.update(path.name.encode() + b"\0")
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
