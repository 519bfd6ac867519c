"""Ray workers of encoding: decode a batch of clips, encode its frames, commit rows of latents.

A batch travels as a one-row Arrow table: first the location of its items, then {unit_id, clips, outcomes, seconds,
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

from pipelines.encode.encoders import Encoders
from pipelines.runner.plan import WorkItemBatch
from videogen.config import FrameSize
from videogen.data.datasets.clips import ClipSpec
from videogen.data.datasets.latents_schema import ROWS_PER_GROUP, latents_row, latents_schema
from videogen.data.isolation import DecoderDiedError, IsolatedDecoder, video_limit_s
from videogen.data.sources import find_versions, version_mismatch
from videogen.data.tables import FAILED, OK, Outcome, write_part
from videogen.data.video import DecodedClip, VideoError, resize_frames
from videogen.startup import imports_without_gc

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

_spent_s: defaultdict[tuple[str, str], float] = defaultdict(float)
"""Seconds lost to dead decoders in this process, by source and version."""

Item = dict[str, Any]
"""A planned clip: item_id and the columns of the clips table that its row keeps."""

_ATTEMPTS = 2
"""For a decoder that died or was stopped; a video that is plainly unreadable is not tried again."""
_MAX_TIMEOUTS = 3
"""Time limits that one video may use up per process before the rest of it is given up."""
_FRAMES_AT_ONCE = 16
"""Frames in one call of the VAE: always counted from a clip's first frame, so a clip's latents depend on it alone."""
_CAPTIONS_KEPT = 4096
_LOG_TAIL = 2000


@dataclass(frozen=True)
class EncodeTask:
    """Settings of every encoding worker. Plain values that pickle."""

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
        """Side lengths in pixels of the encoded squares, ascending."""
        return tuple(size * self.scale_factor for size in self.latent_sizes)

    def frame_size(self, item: Item, pixels: int | None = None) -> FrameSize:
        """Return height and width of a clip's frames where a square has side `pixels` (default: the largest)."""
        size = self.spec.frame_size(item["width"], item["height"])
        return size.scaled(pixels or self.spec.size, self.spec.size)

    @property
    def captioned(self) -> bool:
        """Whether captions are encoded too."""
        return self.encoders.text_encoder_fingerprint is not None


def decode_batch(table: pa.Table, task: EncodeTask) -> pa.Table:
    """Decode the clips of a batch at every encoded size.

    Args:
        table: one row, a `WorkItemBatch`.
        task: settings of the run.
    """
    started = time.perf_counter()
    batch = WorkItemBatch.of(table.to_pylist()[0])
    decoded, outcomes, frames = [], [], []
    for item, result in decode_clips(_decoder(task.limit_s), batch.items(), task):
        if isinstance(result, Outcome):
            outcomes.append(result.with_prior_attempts(item))
            continue
        outcomes.append(Outcome(item["item_id"], OK, uri=item["source"]))
        decoded.append({**item, "decoder": result.decoder})
        frames.append(result.frames)
    columns = {
        "unit_id": pa.array([batch.unit_id]),
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
    """Yield the frames of each item, uint8 (F, H, W, 3) at the largest size, or the reason for having none.

    Clips of one video are read together, so that it is fetched and opened once. If that fails they are read one by one,
    so that damage costs only the clips it covers. All clips of a video share one time limit, because a small hostile
    file can claim thousands of clips.
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
    """Reader of the clips of one video within its time limit."""

    decoder: IsolatedDecoder
    source: str
    version: str
    limit_s: float
    """What one reading may take."""
    size: FrameSize
    """Of the frames; the clips of one video have one."""
    task: EncodeTask

    def read_together(self, clips: Sequence[Item]) -> list[DecodedClip] | None:
        """Return all clips, or None if they cannot be read in one pass."""
        if self._left_s <= 0:
            return None
        try:
            read = self._read([index for item in clips for index in item["frame_indices"]])
        except VideoError:
            return None
        ends = np.cumsum([len(item["frame_indices"]) for item in clips])[:-1]
        return [DecodedClip(frames, read.decoder) for frames in np.split(read.frames, ends)]

    def read(self, item: Item) -> DecodedClip | Outcome:
        """Return one clip, or the reason why it cannot be read."""
        said = f"not attempted: the time budget of {_MAX_TIMEOUTS * self.limit_s:.0f} s for this video is exhausted"
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
        return _MAX_TIMEOUTS * self.limit_s - _spent_s[self.source, self.version]

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
    """Actor that encodes frames with the VAE and captions with the text encoder, and commits the rows."""

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
        # A third faster on CPUs; the layout that tensor cores use.
        self._vae = task.encoders.load_autoencoder().to(self._device, memory_format=torch.channels_last)
        if task.captioned:
            self._tokenizer, text_encoder = task.encoders.load_text_encoder()
            self._text_encoder = text_encoder.to(self._device)
        self._embed = functools.lru_cache(_CAPTIONS_KEPT)(self._embed_caption)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Encode and commit one batch."""
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
            # Some VAEs overflow in half precision, which would show only as a NaN loss in training.
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

    # `vae.device` and `vae.dtype` iterate over all modules: 20 % of a small network's time.
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
    """Return whether every value of an array is finite in float16."""
    return bool(np.abs(array).max(initial=0) <= np.finfo(np.float16).max)


def _one_binary(arrays: Sequence[np.ndarray]) -> pa.Array:
    """Concatenate arrays into a one-value binary column."""
    data = b"".join(np.ascontiguousarray(array).data for array in arrays)
    offsets = pa.py_buffer(np.asarray([0, len(data)], np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, pa.py_buffer(data)])


def _frames_of(table: pa.Table, pixels: int, items: Sequence[Item], task: EncodeTask) -> list[np.ndarray]:
    """Unpack the frames of each clip, uint8 (F, H, W, 3), from `_one_binary`."""
    flat = np.frombuffer(table[f"frames_{pixels}"][0].as_buffer(), np.uint8)
    shapes = [(len(item["frame_indices"]), *task.frame_size(item, pixels), 3) for item in items]
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    return [part.reshape(shape) for part, shape in zip(np.split(flat, ends), shapes, strict=True)]
