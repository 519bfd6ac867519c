"""Frozen encoders (image VAE, text encoder): found before work starts, loaded in each worker."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videogen import storage
from videogen.data.datasets.latents_table import encoder_fingerprint
from videogen.errors import UserError
from videogen.models.pretrained import hub_folder, is_hub_id
from videogen.stages import CascadeConfig

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel, CLIPTokenizer

_AUTOENCODER_NAMES = ("autoencoder", "vae")
"""Sub-folders in which our models and Stable Diffusion's keep the image VAE."""
_WANTED = ("vae/*", "autoencoder/*", "tokenizer/*", "text_encoder/*")


@dataclass(frozen=True)
class Encoders:
    """Location and fingerprints of the encoders. Plain values that pickle to workers."""

    model: str
    """URI of the folder that holds them, or a hub id."""
    autoencoder: str
    """Sub-folder of the image VAE."""
    autoencoder_fingerprint: str
    scaling_factor: float
    text_encoder_fingerprint: str | None = None
    """None where no captions are encoded."""

    def load_autoencoder(self) -> "AutoencoderKL":
        """Return the image VAE, ready to encode."""
        from diffusers import AutoencoderKL

        with self._component(self.autoencoder) as folder:
            return AutoencoderKL.from_pretrained(folder).eval().requires_grad_(False)

    def load_text_encoder(self) -> "tuple[CLIPTokenizer, CLIPTextModel]":
        """Return tokenizer and text encoder."""
        from transformers import CLIPTextModel, CLIPTokenizer

        with self._component("tokenizer") as folder:
            tokenizer = CLIPTokenizer.from_pretrained(folder)
        with self._component("text_encoder") as folder:
            return tokenizer, CLIPTextModel.from_pretrained(folder).eval().requires_grad_(False)

    @contextlib.contextmanager
    def _component(self, name: str) -> Iterator[Path]:
        with storage.local_copy(storage.join(_folder_of(self.model), name)) as path:
            yield path


def find_encoders(uri: str, config: CascadeConfig, captioned: bool) -> Encoders:
    """Find the image VAE at `uri`, and the text encoder beside it if captions are to be encoded.

    Args:
        uri: the VAE's folder, a model folder that holds it, or a hub id.
        config: the cascade whose latents they make.
        captioned: whether the text encoder is needed.

    Raises:
        UserError: something is missing, or the VAE makes latents of another shape than the cascade's.
    """
    model, name = _locate(uri)
    folder = _folder_of(model)
    settings = storage.read_json(storage.join(folder, name, "config.json"))
    _require_shape(uri, settings, config)
    text_encoder_fingerprint = None
    if captioned:
        for part in ("tokenizer", "text_encoder"):
            if not storage.is_dir(storage.join(folder, part)):
                raise UserError(
                    f"Captions need a text encoder, but {folder!r} has no {part!r} folder beside {name!r}: give the "
                    f"autoencoder of a whole model with --autoencoder."
                )
        text_encoder_fingerprint = encoder_fingerprint(storage.join(folder, "text_encoder"))
    return Encoders(
        model=model,
        autoencoder=name,
        autoencoder_fingerprint=encoder_fingerprint(storage.join(folder, name)),
        scaling_factor=float(settings.get("scaling_factor", 0.18215)),
        text_encoder_fingerprint=text_encoder_fingerprint,
    )


def _locate(uri: str) -> tuple[str, str]:
    """Return the model (folder or hub id) that holds the VAE, and the VAE's sub-folder."""
    if is_hub_id(uri):
        folder, model = _folder_of(uri), uri
    else:
        folder = model = storage.absolute(uri)
        storage.require_readable(folder, "Autoencoder")
        if storage.exists(storage.join(folder, "config.json")):
            return storage.require_parent(folder, "Autoencoder"), folder.rsplit("/", 1)[-1]
    for name in _AUTOENCODER_NAMES:
        if storage.exists(storage.join(folder, name, "config.json")):
            return model, name
    raise UserError(
        f"Autoencoder {uri!r} has no config.json, nor a folder {' or '.join(map(repr, _AUTOENCODER_NAMES))} with one: "
        f"give the folder that save_pretrained() wrote."
    )


def _folder_of(model: str) -> str:
    """Return the local folder or URI of a model."""
    return hub_folder(model, _WANTED, "Autoencoder") if is_hub_id(model) else model


def _require_shape(uri: str, settings: dict[str, Any], config: CascadeConfig) -> None:
    factor = 2 ** (len(settings.get("block_out_channels", ())) - 1)
    channels = settings.get("latent_channels")
    if settings.get("_class_name") != "AutoencoderKL":
        raise UserError(
            f"Autoencoder {uri!r} is a {settings.get('_class_name')!r}, not an AutoencoderKL: give an image VAE."
        )
    if factor != config.vae_scale_factor:
        raise UserError(
            f"Autoencoder {uri!r} makes latents of 1/{factor} of the pixels, but preset {config.name!r} is built on "
            f"1/{config.vae_scale_factor}: give the autoencoder of this preset, or another preset."
        )
    if channels != config.autoencoder.model.latent_channels:
        raise UserError(
            f"Autoencoder {uri!r} makes latents of {channels} channels, but preset {config.name!r} is built on "
            f"{config.autoencoder.model.latent_channels}: give the autoencoder of this preset, or another preset."
        )
