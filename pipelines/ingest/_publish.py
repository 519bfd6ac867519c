"""Index of a clips table: near-duplicate detection, policy, funnel counts."""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from videogen.data.curation import Policy
from videogen.data.curation.duplicates import DedupThresholds, find_duplicates, find_duplicates_by_embedding
from videogen.data.datasets.clips_schema import IngestSpec, clips_index_schema
from videogen.data.tables import select

_ROWS_PER_GROUP = 65_536


class PolicyResult:
    """Result of a policy for every clip of a table.

    Args:
        path: parquet file of the clips, one row each, with `ordinal` and `duplicate_of`.
        policy: rules that a clip must pass.
        schema: of the index.
    """

    def __init__(self, path: Path, policy: Policy, schema: pa.Schema) -> None:
        self._path, self._schema = path, schema
        with pq.ParquetFile(path) as file:
            num_clips = file.metadata.num_rows
        names = ["", *policy.rules]
        # The first rule that a clip breaks is the one that drops it; unknown (NULL) is not passing.
        self._dropped_by = np.zeros(num_clips, np.int32)
        self.funnel: list[dict[str, Any]] = []
        for number, (name, expression) in enumerate(policy.rules.items(), start=1):
            broken = self._breaking(expression)
            first = broken[self._dropped_by[broken] == 0]
            self._dropped_by[first] = number
            left = int((self._dropped_by == 0).sum())
            said = {"rule": name, "expression": expression, "breaks": len(broken), "drops": len(first), "left": left}
            self.funnel.append(said)
        self._names = pa.array(names, pa.string())
        self.kept = int((self._dropped_by == 0).sum())

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows of the index, in order."""
        start = 0
        with pq.ParquetFile(self._path) as file:
            for batch in file.iter_batches(_ROWS_PER_GROUP):
                numbers = self._dropped_by[start : start + len(batch)]
                start += len(batch)
                columns = {name: batch[name] for name in batch.schema.names}
                columns["dropped_by"] = self._names.take(pa.array(numbers))
                yield pa.record_batch([columns[field.name] for field in self._schema], schema=self._schema)

    def _breaking(self, expression: str) -> np.ndarray:
        where = f"NOT coalesce((\n{expression}\n), false)"
        parts = [batch["ordinal"].to_numpy() for batch in select([str(self._path)], ["ordinal"], where)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)


@dataclass
class DedupFeatures:
    """Features for near-duplicate detection, one entry per clip."""

    ids: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    hashes: list[int | None] = field(default_factory=list)
    embeddings: list[bytes | None] = field(default_factory=list)

    def duplicates(self, spec: IngestSpec, dedup: DedupThresholds) -> list[str]:
        """Return for each clip the first near-duplicate clip of another video, or ""."""
        copies = [""] * len(self.ids)
        if spec.hashes:
            copies = find_duplicates(self.ids, self.hashes, dedup.distance, self.sources)
        width = max((len(one) for one in self.embeddings if one), default=0)
        if width:
            vectors = np.stack([np.frombuffer(one or bytes(width), np.float16) for one in self.embeddings])
            alike = find_duplicates_by_embedding(self.ids, vectors, dedup.cosine, self.sources)
            copies = [by_hash or by_embedding for by_hash, by_embedding in zip(copies, alike, strict=True)]
        return copies


@contextlib.contextmanager
def apply_policy(
    located: Iterable[pa.RecordBatch], spec: IngestSpec, policy: Policy, dedup: DedupThresholds
) -> Iterator[PolicyResult]:
    """Apply a policy to clips; temporary files exist as long as the context.

    Args:
        located: rows with the columns of the index, without `duplicate_of` and `dropped_by`.
        spec: specification of the clips.
        policy: rules that a clip must pass to be kept.
        dedup: deduplication thresholds.
    """
    schema = clips_index_schema(spec.scores)
    with tempfile.TemporaryDirectory(prefix="videogen-publish-") as name:
        spooled, labelled = Path(name) / "located.parquet", Path(name) / "clips.parquet"
        features = _spool(located, spooled, schema)
        _add_duplicates(spooled, labelled, features.duplicates(spec, dedup))
        yield PolicyResult(labelled, policy, schema)


def _spool(located: Iterable[pa.RecordBatch], path: Path, schema: pa.Schema) -> DedupFeatures:
    """Write the clips to disk; return their deduplication features."""
    wanted = pa.schema([column for column in schema if column.name not in ("duplicate_of", "dropped_by")])
    features = DedupFeatures()
    with pq.ParquetWriter(path, wanted) as writer:
        for batch in located:
            columns = {**{name: batch[name] for name in batch.schema.names}, "source": batch["uri"]}
            writer.write_batch(pa.record_batch([columns[column.name] for column in wanted], schema=wanted))
            features.ids += batch["clip_id"].to_pylist()
            features.sources += batch["video_id"].to_pylist()
            features.hashes += batch["perceptual_hash"].to_pylist()
            if "embedding" in columns:
                features.embeddings += batch["embedding"].to_pylist()
    return features


def _add_duplicates(source: Path, target: Path, copies: Sequence[str]) -> None:
    start = 0
    with pq.ParquetFile(source) as file:
        more = [pa.field("ordinal", pa.int64()), pa.field("duplicate_of", pa.string())]
        schema = pa.schema([*file.schema_arrow, *more])
        with pq.ParquetWriter(target, schema) as writer:
            for batch in file.iter_batches(_ROWS_PER_GROUP):
                end = start + len(batch)
                added = [pa.array(np.arange(start, end)), pa.array(copies[start:end], pa.string())]
                writer.write_batch(pa.record_batch([*batch.columns, *added], schema=schema))
                start = end
