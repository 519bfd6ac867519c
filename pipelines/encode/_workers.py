"""What runs in Ray workers while encoding: decoding a unit of clips, and turning its frames into rows of latents.

A unit travels as a one-row Arrow table: first the place of its items, then {unit_id, clips, outcomes, seconds,
frames_<pixels>...}, at last {record}. Only decoded frames at the sizes that are encoded cross the object store.
"""

import functools
import itertools
import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipelines.encode._encoders import Encoders
from pipelines.runner.plan import WorkItemBatch
from pipelines.runner.timeouts import video_limit_s
from videogen.config import FrameSize
from videogen.data.datasets.clips import ClipSpec
from videogen.data.datasets.latents_schema import ROWS_PER_GROUP, latents_row, latents_schema
from videogen.data.isolation import DecoderDiedError, IsolatedDecoder
from videogen.data.sources import find_versions, version_mismatch
from videogen.data.tables import FAILED, OK, Outcome, write_part
from videogen.data.video import DecodedClip, VideoError, resize_frames
from videogen.startup import imports_without_gc

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

_spent_s: defaultdict[tuple[str, str], float] = defaultdict(float)
"""Seconds that this process has read each content of each file in vain, because its decoder died."""

Item = dict[str, Any]
"""A planned clip: item_id and the columns of the clips table that its row keeps."""

_ATTEMPTS = 2
"""For a decoder that died or was stopped; a video that is plainly unreadable is not tried again."""
_PATIENCE = 3
"""Readings of a video that may take all the time they have, in one process, before the rest of it is given up."""
_FRAMES_AT_ONCE = 16
"""Frames in one call of the VAE: always counted from a clip's first frame, so a clip's latents depend on it alone."""
_CAPTIONS_KEPT = 4096
_LOG_TAIL = 2000


@dataclass(frozen=True)
class EncodeTask:
    """What a worker needs to know beside the unit. Plain values, so that it travels."""

    output: str
    identity: str
    encoders: Encoders
    latent_sizes: tuple[int, ...]
    """Latent pixels a side of a square, ascending."""
    scale_factor: int
    """Pixels a side that one latent pixel stands for."""
    spec: ClipSpec
    """What the frames of a clip look like at the largest size."""
    decoder: str = "auto"
    limit_s: float = 60.0
    """Seconds that one reading of a small video may take; see `video_limit_s`."""

    @property
    def pixel_sizes(self) -> tuple[int, ...]:
        """Pixels a side of a square that is encoded, ascending."""
        return tuple(size * self.scale_factor for size in self.latent_sizes)

    def frame_size(self, item: Item, pixels: int | None = None) -> FrameSize:
        """Return height and width of a clip's frames where a square has `pixels` a side: the largest by default."""
        size = self.spec.frame_size(item["width"], item["height"])
        return size.scaled(pixels or self.spec.size, self.spec.size)

    @property
    def captioned(self) -> bool:
        """Whether captions are encoded too."""
        return self.encoders.text_encoder_fingerprint is not None


def decode_batch(table: pa.Table, task: EncodeTask) -> pa.Table:
    """Decode the clips of a unit, each at every size that is encoded.

    Args:
        table: one row, a `WorkItemBatch`.
        task: what to decode.
    """
    started = time.perf_counter()
    unit = WorkItemBatch.of(table.to_pylist()[0])
    decoded, outcomes, frames = [], [], []
    for item, result in decode_clips(_decoder(task.limit_s), unit.items(), task):
        if isinstance(result, Outcome):
            outcomes.append(result.with_prior_attempts(item))
            continue
        outcomes.append(Outcome(item["item_id"], OK, uri=item["source"]))
        decoded.append({**item, "decoder": result.decoder})
        frames.append(result.frames)
    columns = {
        "unit_id": pa.array([unit.unit_id]),
        "clips": pa.array([json.dumps(decoded)]),
        "outcomes": pa.array([json.dumps([outcome.as_dict() for outcome in outcomes])]),
        "seconds": pa.array([time.perf_counter() - started]),
    }
    for size in task.pixel_sizes:
        sides = [task.frame_size(item, size) for item in decoded]
        columns[f"frames_{size}"] = _one_binary(list(map(resize_frames, frames, sides)))
    return pa.table(columns)


@functools.cache
def _decoder(limit_s: float) -> IsolatedDecoder:
    return IsolatedDecoder(limit_s)


def decode_clips(
    decoder: IsolatedDecoder, items: Sequence[Item], task: EncodeTask
) -> Iterator[tuple[Item, DecodedClip | Outcome]]:
    """Yield for each item its frames, uint8 (F, H, W, 3) at the largest size, or why there are none.

    Clips of one video are read together, so that it is fetched and opened once; where that fails, one by one, so that
    a damaged stretch of a video costs no more than the clips in it. A file of a few kilobytes may promise a thousand
    clips, on each of which the decoder is stopped in the end: when the time for that is used up, the rest is given up.
    """
    for source, run in itertools.groupby(items, key=lambda item: item["source"]):
        clips = list(run)
        version = clips[0]["version"]
        ((now, num_bytes),) = find_versions([source], "Input")
        if reason := version_mismatch(now, version):
            for item in clips:
                yield item, _failed(item, "fetch", reason)
            continue
        limit_s = video_limit_s(task.limit_s, num_bytes)
        reader = _VideoReader(decoder, source, version, limit_s, task.frame_size(clips[0]), task)
        together = reader.read_together(clips) if len(clips) > 1 else None
        for index, item in enumerate(clips):
            yield item, together[index] if together else reader.read(item)


@dataclass(frozen=True)
class _VideoReader:
    """Reads clips of one video, for as long as there is time for it."""

    decoder: IsolatedDecoder
    source: str
    version: str
    limit_s: float
    """What one reading may take."""
    size: FrameSize
    """Of the frames; the clips of one video have one."""
    task: EncodeTask

    def read_together(self, clips: Sequence[Item]) -> list[DecodedClip] | None:
        """Return all clips, or None if they cannot be had in one go."""
        if self._left_s <= 0:
            return None
        try:
            read = self._read([index for item in clips for index in item["frame_indices"]])
        except VideoError:
            return None
        ends = np.cumsum([len(item["frame_indices"]) for item in clips])[:-1]
        return [DecodedClip(frames, read.decoder) for frames in np.split(read.frames, ends)]

    def read(self, item: Item) -> DecodedClip | Outcome:
        """Return one clip, or why it cannot be had."""
        said = f"it was not tried: the {_PATIENCE * self.limit_s:.0f} s for this video had been used up"
        outcome = _failed(item, "decode", said, attempts=0)
        for attempt in range(1, _ATTEMPTS + 1):
            if self._left_s <= 0:
                break
            try:
                return self._read(item["frame_indices"])
            except VideoError as error:
                outcome = _failed(item, "decode", str(error), attempt, error.log_tail[-_LOG_TAIL:])
                if not isinstance(error, DecoderDiedError):
                    break
        return outcome

    @property
    def _left_s(self) -> float:
        return _PATIENCE * self.limit_s - _spent_s[self.source, self.version]

    def _read(self, indices: Sequence[int]) -> DecodedClip:
        started = time.monotonic()
        try:
            limit_s = min(self.limit_s, self._left_s)
            return self.decoder.read_clip(self.source, indices, self.size, self.task.decoder, limit_s)
        except DecoderDiedError:
            _spent_s[self.source, self.version] += time.monotonic() - started
            raise


def _failed(item: Item, stage: str, error: str, attempts: int = 1, log_tail: str = "") -> Outcome:
    return Outcome(item["item_id"], FAILED, 0, item["source"], stage, error, attempts, log_tail)


class EncodeActor:
    """Encode the frames of a unit with the VAE and its captions with the text encoder, and commit its rows."""

    def __init__(self, task: EncodeTask) -> None:
        with imports_without_gc():
            import torch
            from diffusers import AutoencoderKL  # noqa: F401 - what `task.encoders` load
            from transformers import CLIPTextModel  # noqa: F401

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        if self._device == "cpu":
            # One actor a core scales better than threads inside one actor.
            torch.set_num_threads(1)
        self._task = task
        self._schema = latents_schema(task.latent_sizes, task.captioned)
        # A third faster on CPUs, and what tensor cores want.
        self._vae = task.encoders.load_autoencoder().to(self._device, memory_format=torch.channels_last)
        if task.captioned:
            self._tokenizer, text_encoder = task.encoders.load_text_encoder()
            self._text_encoder = text_encoder.to(self._device)
        self._embed = functools.lru_cache(_CAPTIONS_KEPT)(self._embed_caption)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Map one unit."""
        started = time.perf_counter()
        task = self._task
        items = json.loads(table["clips"][0].as_py())
        outcomes = [Outcome(**values) for values in json.loads(table["outcomes"][0].as_py())]
        frames = {size: _frames_of(table, size, items, task) for size in task.pixel_sizes} if items else {}
        rows = []
        broken = {}
        for index, item in enumerate(items):
            arrays = {}
            for size, pixels in zip(task.latent_sizes, task.pixel_sizes, strict=True):
                arrays[f"latents_{size}"], arrays[f"latents_{size}_logvar"] = encode_frames(
                    self._vae, frames[pixels][index]
                )
            if task.captioned:
                arrays["prompt_embeds"] = self._embed(item["caption"])
            # Some VAEs overflow in half precision; a loss that is not a number would show it a week later.
            if name := next((name for name, array in arrays.items() if not _fits(array)), None):
                broken[item["item_id"]] = _failed(item, "encode", f"{name} holds numbers that float16 cannot")
            else:
                rows.append(latents_row(item, arrays))
        outcomes = [broken.get(outcome.item_id, outcome) for outcome in outcomes]
        metrics = {"decode_s": table["seconds"][0].as_py(), "encode_s": time.perf_counter() - started}
        record = write_part(
            task.output,
            table["unit_id"][0].as_py(),
            pa.Table.from_pylist(rows, schema=self._schema),
            outcomes,
            task.identity,
            metrics,
            rows_per_group=ROWS_PER_GROUP,
        )
        return pa.table({"record": [record.to_json()]})

    def _embed_caption(self, caption: str) -> np.ndarray:
        from videogen.stages.text.network import encode_prompts

        return encode_prompts(self._tokenizer, self._text_encoder, [caption])[0].cpu().numpy()


def encode_frames(vae: "AutoencoderKL", frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the posterior of uint8 frames (F, H, W, 3): mean and log-variance, float32 (F, C, h, w) each.

    The scaling factor is not applied.
    """
    import torch

    # Not `vae.device` and `vae.dtype`, which look through all modules each time: a fifth of a small network's time.
    weight = next(vae.parameters())
    means, logvars = [], []
    with torch.inference_mode():
        for start in range(0, len(frames), _FRAMES_AT_ONCE):
            part = np.array(frames[start : start + _FRAMES_AT_ONCE])
            # Permuted, not copied: frames in memory are channels-last already.
            pixels = torch.from_numpy(part).to(weight.device).permute(0, 3, 1, 2).to(weight.dtype) / 127.5 - 1
            posterior = vae.encode(pixels).latent_dist
            means.append(posterior.mean.float().cpu())
            logvars.append(posterior.logvar.float().cpu())
    return torch.cat(means).numpy(), torch.cat(logvars).numpy()


def _fits(array: np.ndarray) -> bool:
    """Tell whether float16 holds all of an array: no NaN, nothing infinite, nothing that becomes so."""
    return bool(np.abs(array).max(initial=0) <= np.finfo(np.float16).max)


def _one_binary(arrays: Sequence[np.ndarray]) -> pa.Array:
    """Return a column of one value that holds all arrays, one after the other."""
    data = b"".join(np.ascontiguousarray(array).data for array in arrays)
    offsets = pa.py_buffer(np.asarray([0, len(data)], np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, pa.py_buffer(data)])


def _frames_of(table: pa.Table, pixels: int, items: Sequence[Item], task: EncodeTask) -> list[np.ndarray]:
    """Return what `_one_binary` packed, uint8 (F, H, W, 3) of each clip."""
    flat = np.frombuffer(table[f"frames_{pixels}"][0].as_buffer(), np.uint8)
    shapes = [(len(item["frame_indices"]), *task.frame_size(item, pixels), 3) for item in items]
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    return [part.reshape(shape) for part, shape in zip(np.split(flat, ends), shapes, strict=True)]
