"""Ray workers of batch generation: prepare rows, run one stage per actor, write videos.

Blocks between stages are arrow tables with the columns of `BLOCK_SCHEMA`; see `payload.py` for `payload`.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa

from pipelines.generate.manifest import MANIFEST_SCHEMA, intermediates_uri, video_uri
from pipelines.generate.model import model_folder
from pipelines.generate.payload import keep, kept, pack, unpack
from pipelines.generate.prompts import request_of
from videogen import storage
from videogen.stages import CascadeConfig, new_sample
from videogen.startup import imports_without_gc

if TYPE_CHECKING:
    from videogen.stages import Sample

BLOCK_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("prompt", pa.string()),
        ("negative_prompt", pa.string()),
        ("seed", pa.int64()),
        ("payload", pa.large_binary()),
        ("error", pa.string()),
    ]
)

_Result = TypeVar("_Result")


class Prepare:
    """Convert rows of the prompts table into blocks, skipping finished ones.

    Args:
        skip: ids of rows that have their video.
    """

    def __init__(self, skip: frozenset[str]) -> None:
        self.skip = skip

    def __call__(self, table: pa.Table) -> pa.Table:
        """Map a table with columns of `pipelines.generate.prompts.COLUMNS` to `BLOCK_SCHEMA`."""
        rows = []
        for source in table.to_pylist():
            request = request_of(source)
            if request.id in self.skip:
                continue
            row = {name: getattr(request, name) for name in ("id", "prompt", "negative_prompt", "seed")}
            rows.append(row | _with_reference(request.reference_image))
        return pa.Table.from_pylist(rows, schema=BLOCK_SCHEMA)


def _with_reference(image: str | bytes | None) -> dict[str, Any]:
    """Return payload and error: the decoded reference image, or the reason of its failure."""
    if image is None:
        return {"payload": pack({}, set()), "error": ""}
    from PIL import Image

    try:
        data = storage.read_bytes(image) if isinstance(image, str) else image
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except Exception as error:  # noqa: BLE001 storage and image formats fail in many ways; each is this row's alone
        shown = image if isinstance(image, str) else f"{len(image)} bytes"
        return {"payload": b"", "error": f"reference_image ({shown}): {_sentence(error)}"}
    return {"payload": pack({"reference_image": pixels}, {"reference_image"}), "error": ""}


@dataclass(frozen=True)
class StageSpec:
    """Settings of one stage for its actors."""

    name: str
    model: str
    """URI of the model folder."""
    config: CascadeConfig
    """The model's own configuration, or with other sampling settings."""
    device: str
    needed_after: frozenset[str]
    """What later stages read; everything else ends here."""
    keep: bool
    """Whether this stage's products are saved beside the video."""


class StageActor:
    """Actor that runs one stage."""

    def __init__(self, spec: StageSpec) -> None:
        from videogen.stages import load_stage

        self.spec = spec
        with model_folder(spec.model, spec.config) as folder, imports_without_gc():
            self.stage = load_stage(spec.name, folder, device=spec.device)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Run the stage on the rows of a block that have not failed."""
        rows = table.to_pylist()
        self.run(rows)
        return pa.Table.from_pylist(rows, schema=BLOCK_SCHEMA)

    def run(self, rows: list[dict[str, Any]]) -> None:
        """Replace each row's payload, or set its error."""
        for row, sample in self._samples(rows):
            row["payload"] = pack(sample, set(self.spec.needed_after))

    def _samples(self, rows: list[dict[str, Any]]) -> list[tuple[dict[str, Any], "Sample"]]:
        """Return the rows that have not failed, each with its sample after this stage."""
        alive = [row for row in rows if not row["error"]]
        samples = [
            new_sample(row["prompt"], row["seed"], row["negative_prompt"]) | unpack(row["payload"]) for row in alive
        ]
        finished = []
        for row, sample, produced in zip(alive, samples, self._produce(alive, samples), strict=True):
            if produced is None:
                row["payload"] = b""
                continue
            whole = sample | produced
            if self.spec.keep:
                keep(whole, self.spec.name, produced)
            finished.append((row, whole))
        return finished

    def _produce(self, rows: list[dict[str, Any]], samples: Sequence["Sample"]) -> Sequence["Sample | None"]:
        """Run the batch; if it fails, run its rows one by one, so that only the faulty ones are lost."""
        if not samples:
            return []
        try:
            return self.stage(samples)
        except Exception:  # noqa: BLE001 whatever it is, the rows decide below
            return [self._alone(row, sample) for row, sample in zip(rows, samples, strict=True)]

    def _alone(self, row: dict[str, Any], sample: "Sample") -> "Sample | None":
        return self._guarded(row, lambda: self.stage([sample])[0])

    def _guarded(self, row: dict[str, Any], work: Callable[[], _Result]) -> _Result | None:
        """Return the result of `work`, or None after setting the row's error."""
        try:
            return work()
        except Exception as error:  # noqa: BLE001 a failed row never stops the others
            row["error"] = f"{self.spec.name}: {_sentence(error)}"
            return None


class DecodeAndWriteActor(StageActor):
    """Actor of the last stage, which also writes the videos.

    Args:
        spec: the stage.
        output: URI of the run's folder.
        fps: frames a second of the videos.
    """

    def __init__(self, spec: StageSpec, output: str, fps: float) -> None:
        super().__init__(spec)
        self.output = output
        self.fps = fps

    def __call__(self, table: pa.Table) -> pa.Table:
        """Run the stage, write the videos, and return rows of the manifest."""
        rows = table.to_pylist()
        videos: dict[str, dict[str, Any]] = {}
        for row, sample in self._samples(rows):
            written = self._written(row, sample)
            videos[row["id"]] = written or {}
        records = [
            {"video": "", "num_frames": 0, "width": 0, "height": 0, "fps": self.fps}
            | {name: row[name] for name in ("id", "prompt", "seed", "error")}
            | {"status": "failed" if row["error"] else "ok"}
            | videos.get(row["id"], {})
            for row in rows
        ]
        return pa.Table.from_pylist(records, schema=MANIFEST_SCHEMA)

    def _written(self, row: dict[str, Any], sample: "Sample") -> dict[str, Any] | None:
        return self._guarded(row, lambda: self._write(row["id"], sample))

    def _write(self, name: str, sample: "Sample") -> dict[str, Any]:
        from safetensors.numpy import save

        from videogen.data.video import write_mp4

        frames = sample["frames"]
        intermediates = kept(sample)
        if intermediates:
            # mp4 is lossy; the frames allow bit-exact comparison of two runs.
            intermediates[f"{self.spec.name}.frames"] = frames
            uri = intermediates_uri(self.output, name)
            storage.write_bytes(uri, save({key: np.ascontiguousarray(value) for key, value in intermediates.items()}))
        # Last: an existing video implies complete intermediates.
        uri = video_uri(self.output, name)
        storage.write_bytes(uri, write_mp4(frames, self.fps))
        return {"video": uri, "num_frames": len(frames), "width": frames.shape[2], "height": frames.shape[1]}


def _sentence(error: BaseException) -> str:
    """Return an exception as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
