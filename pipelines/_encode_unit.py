"""What runs in Ray workers while encoding: decoding a unit of clips, and turning its frames into a shard.

A unit travels as a one-row Arrow table: first {unit_id, clips}, then {unit_id, clips, failures, frames_<pixels>...},
at last {unit_id, rows, bytes, failures}. Only decoded frames at the sizes that are encoded cross the object store.
"""

import functools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipelines._encoders import Encoders
from videogen import storage
from videogen.data import Clip, Failure, VideoError, resize_frames
from videogen.data.isolated import DecoderDiedError, IsolatedDecoder, shared_decoder
from videogen.data.latents import shard_bytes, shard_row, shard_schema

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

_ATTEMPTS = 2
"""For a decoder that died or was stopped; a video that is plainly unreadable is not tried again."""
_FRAMES_AT_ONCE = 16
"""Frames in one call of the VAE: always counted from a clip's first frame, so a clip's latents depend on it alone."""
_CAPTIONS_KEPT = 4096


@dataclass(frozen=True)
class Unit:
    """A group of clips that is encoded, written and, after an interruption, skipped as a whole."""

    unit_id: str
    clips: tuple[Clip, ...]

    @property
    def shard_name(self) -> str:
        """Where its shard lies in the table; the name follows from the content."""
        return f"shards/{self.unit_id}.parquet"

    def as_row(self) -> dict[str, str]:
        """Return the unit as a row of strings."""
        return {"unit_id": self.unit_id, "clips": _dump(self.clips)}


def decode_unit(table: pa.Table, sizes: Sequence[int]) -> pa.Table:
    """Decode the clips of a unit, each at every size that is encoded.

    Args:
        table: one row.
        sizes: pixels a side, ascending; smaller ones are resized from the largest.
    """
    clips = [Clip(**clip) for clip in json.loads(table["clips"][0].as_py())]
    decoded, failures, frames = [], [], []
    for clip in clips:
        result = decode_clip(shared_decoder(), clip, sizes[-1])
        if isinstance(result, Failure):
            failures.append(result)
        else:
            decoded.append(clip)
            frames.append(result)
    columns = {
        "unit_id": table["unit_id"].combine_chunks(),
        "clips": pa.array([_dump(decoded)]),
        "failures": pa.array([_dump(failures)]),
    }
    for size in sizes:
        columns[f"frames_{size}"] = _one_binary([resize_frames(clip, size) for clip in frames])
    return pa.table(columns)


def decode_clip(decoder: IsolatedDecoder, clip: Clip, size: int) -> np.ndarray | Failure:
    """Return a clip's frames, uint8 (F, size, size, 3), or why there are none."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return decoder.read_frames(clip.source, clip.frame_indices, size)
        except VideoError as error:
            failure = Failure(clip.source, "decode", str(error), attempt)
            if not isinstance(error, DecoderDiedError):
                break
    return failure


class EncodeUnit:
    """Encode the frames of a unit with the VAE and its captions with the text encoder, and write its shard.

    Args:
        encoders: the networks.
        latent_sizes: latent pixels a side, ascending.
        scale_factor: pixels a side that one latent pixel stands for.
        output_uri: folder of the table.
    """

    def __init__(self, encoders: Encoders, latent_sizes: Sequence[int], scale_factor: int, output_uri: str) -> None:
        import torch

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        if self._device == "cpu":
            # One actor a core scales better than threads inside one actor.
            torch.set_num_threads(1)
        self._pixels = {latent_size: latent_size * scale_factor for latent_size in latent_sizes}
        self._output_uri = output_uri
        self._captioned = encoders.text_encoder_fingerprint is not None
        self._schema = shard_schema(latent_sizes, self._captioned)
        # A third faster on CPUs, and what tensor cores want.
        self._vae = encoders.load_autoencoder().to(self._device, memory_format=torch.channels_last)
        if self._captioned:
            self._tokenizer, text_encoder = encoders.load_text_encoder()
            self._text_encoder = text_encoder.to(self._device)
        self._embed = functools.lru_cache(_CAPTIONS_KEPT)(self._embed_caption)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Map one unit."""
        clips = [Clip(**clip) for clip in json.loads(table["clips"][0].as_py())]
        failures = [Failure(**failure) for failure in json.loads(table["failures"][0].as_py())]
        frames = {size: _frames_of(table, pixels, len(clips)) for size, pixels in self._pixels.items()} if clips else {}
        rows = []
        for index, clip in enumerate(clips):
            arrays = {f"latents_{size}": encode_frames(self._vae, frames[size][index]) for size in self._pixels}
            if self._captioned:
                arrays["prompt_embeds"] = self._embed(clip.caption)
            rows.append(shard_row(clip, arrays))
        unit_id = table["unit_id"][0].as_py()
        shard = shard_bytes(rows, failures, self._schema)
        storage.write_bytes(storage.join(self._output_uri, Unit(unit_id, ()).shard_name), shard)
        return pa.table(
            {"unit_id": [unit_id], "rows": [len(rows)], "bytes": [len(shard)], "failures": [_dump(failures)]}
        )

    def _embed_caption(self, caption: str) -> np.ndarray:
        from videogen.models.text import encode_prompts

        return encode_prompts(self._tokenizer, self._text_encoder, [caption])[0].cpu().numpy()


def encode_frames(vae: "AutoencoderKL", frames: np.ndarray) -> np.ndarray:
    """Return the posterior mean of uint8 frames (F, H, W, 3): float32 (F, C, h, w), scaling factor not applied."""
    import torch

    means = []
    with torch.inference_mode():
        for start in range(0, len(frames), _FRAMES_AT_ONCE):
            part = np.array(frames[start : start + _FRAMES_AT_ONCE])
            # Permuted, not copied: frames in memory are channels-last already.
            pixels = torch.from_numpy(part).to(vae.device).permute(0, 3, 1, 2).to(vae.dtype) / 127.5 - 1
            means.append(vae.encode(pixels).latent_dist.mean.float().cpu())
    return torch.cat(means).numpy()


def _dump(items: Sequence[Clip] | Sequence[Failure]) -> str:
    return json.dumps([asdict(item) for item in items])


def _one_binary(arrays: Sequence[np.ndarray]) -> pa.Array:
    """Return a column of one value that holds all arrays, one after the other."""
    data = b"".join(np.ascontiguousarray(array).data for array in arrays)
    offsets = pa.py_buffer(np.asarray([0, len(data)], np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, pa.py_buffer(data)])


def _frames_of(table: pa.Table, pixels: int, num_clips: int) -> np.ndarray:
    """Return what `_one_binary` packed, uint8 (clips, F, pixels, pixels, 3)."""
    flat = np.frombuffer(table[f"frames_{pixels}"][0].as_buffer(), np.uint8)
    return flat.reshape(num_clips, -1, pixels, pixels, 3)
