"""Frozen components that objectives read from the model folder."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from videogen.errors import UserError


def load_image_autoencoder(model_folder: str) -> AutoencoderKL:
    """Return the frozen image VAE of a model folder.

    Raises:
        UserError: it is not there yet.
    """
    folder = Path(model_folder) / "autoencoder"
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no autoencoder: train it first with --stages autoencoder.")
    return AutoencoderKL.from_pretrained(folder).eval().requires_grad_(False)


def load_text_encoder(model_folder: str) -> tuple[CLIPTokenizer, CLIPTextModel]:
    """Return the frozen tokenizer and text encoder of a model folder."""
    folder = Path(model_folder)
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder").eval().requires_grad_(False)
    return CLIPTokenizer.from_pretrained(folder / "tokenizer"), encoder


def tensor_column(rows: list[dict[str, Any]], field: str) -> Tensor:
    """Stack one field of dataset rows into a float32 tensor (B, ...)."""
    return torch.from_numpy(np.stack([row[field] for row in rows])).float()
