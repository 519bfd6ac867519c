"""Ray actors of ingesting with networks: embeddings, aesthetic scores, captions."""

import io
import time

import numpy as np
import pyarrow as pa

from pipelines.ingest._workers import IngestTask, commit
from videogen.data.curation.learned import mean_direction
from videogen.startup import imports_without_gc


class ModelActor:
    """Actor that fills the columns of a batch that need networks, and commits it."""

    def __init__(self, task: IngestTask) -> None:
        with imports_without_gc():
            import torch
            from transformers import CLIPModel  # noqa: F401 - what `ClipEmbedding` loads

            from videogen.data.curation.learned import AestheticScore, Captioner, ClipEmbedding

        device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cpu":
            torch.set_num_threads(1)
        spec = task.spec
        self._task = task
        self._embedding = ClipEmbedding.from_pretrained(spec.embedding, device) if spec.embedding else None
        self._aesthetic = AestheticScore.from_pretrained(spec.aesthetic, self._embedding) if spec.aesthetic else None
        self._captioner = Captioner.from_pretrained(spec.captioner, device) if spec.captioner else None

    def __call__(self, table: pa.Table) -> pa.Table:
        """Process one output of `analyse_batch`."""
        started = time.perf_counter()
        unit_id, outcomes, seconds = (table[name][0].as_py() for name in ("unit_id", "outcomes", "seconds"))
        with pa.ipc.open_stream(table["rows"][0].as_py()) as reader:
            rows = reader.read_all()
        filled = [
            {**row, **self._look(row["caption"], [_pixels(picture) for picture in pictures])}
            for row, pictures in zip(rows.to_pylist(), table["samples"][0].as_py(), strict=True)
        ]
        done = pa.Table.from_pylist(filled, schema=rows.schema)
        metrics = {"analyse_s": seconds, "learn_s": time.perf_counter() - started}
        return commit(unit_id, done, outcomes, self._task, metrics)

    def _look(self, caption: str | None, pictures: list[np.ndarray]) -> dict[str, object]:
        frames = np.stack(pictures)
        columns: dict[str, object] = {}
        if self._embedding is not None:
            vectors = self._embedding.of_frames(frames)
            columns["embedding"] = mean_direction(vectors).tobytes()
            if self._aesthetic is not None:
                columns["aesthetic"] = self._aesthetic.of_vectors(vectors)
        if self._captioner is not None and caption is None:
            columns["caption"] = self._captioner(frames) or None
            columns["caption_source"] = "generated"
        return columns


def _pixels(picture: bytes) -> np.ndarray:
    """Return a JPEG's pixels, uint8 RGB (h, w, 3)."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
