"""Clips for the tests of order and loader: numbers in memory, and real parquet shards."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from videogen import storage
from videogen.cache import ByteCache
from videogen.data.datasets.clips import ClipSpec
from videogen.data.datasets.dataset import ClipDataset, Shapes
from videogen.data.datasets.latents_schema import KIND, ROWS_PER_GROUP, SCHEMA_VERSION, latents_row, latents_schema
from videogen.data.datasets.latents_table import LatentsTable
from videogen.data.tables import OK, Lease, Ledger, Outcome, Row, pack_shard, read_shard, write_part
from videogen.training.buckets import Batches
from videogen.training.loader import BatchPlan, Loader


class Numbered:
    """Clips in memory whose content is their number, with blocks and shapes."""

    def __init__(self, sizes: Sequence[int], labels: Sequence[int] | None = None, name: str = "numbered") -> None:
        self.fingerprint = name
        self._ends = np.cumsum(sizes)
        self._labels = None if labels is None else np.asarray(labels)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def block_ends(self) -> np.ndarray:
        return self._ends

    def shapes(self) -> Shapes | None:
        if self._labels is None:
            return None
        return Shapes(64 + self._labels, *(np.full(len(self), value) for value in (64, 16, 24.0)))

    def row(self, index: int, fields: Sequence[str]) -> Row:
        return dict.fromkeys(fields, index)


class ParquetClips:
    """Clips in the row groups of parquet shards, read as tables of latents are; counts reads."""

    def __init__(self, uri: str, cached_groups: int = 10**6, first_wait_s: float = 0.01) -> None:
        names = storage.list_files(uri, [".parquet"])
        self.groups = []
        for name in names:
            filesystem, path = storage.arrow_filesystem(name)
            with filesystem.open_input_file(path) as file:
                metadata = pq.read_metadata(file)
            self.groups += [
                (name, group, metadata.row_group(group).num_rows) for group in range(metadata.num_row_groups)
            ]
        self.fingerprint = hashlib.sha256(json.dumps([group[1:] for group in self.groups]).encode()).hexdigest()
        self._ends = np.cumsum([rows for _, _, rows in self.groups])
        self.reads: list[int] = []
        self._cache: ByteCache[pa.Table] = ByteCache(cached_groups * self._read(0).nbytes)
        self._first_wait_s = first_wait_s
        self.reads.clear()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def block_ends(self) -> np.ndarray:
        return self._ends

    def row(self, index: int, fields: Sequence[str]) -> Row:
        group = int(np.searchsorted(self._ends, index, side="right"))
        uri, _, rows = self.groups[group]
        table = self._cache.get(group, lambda: read_shard(uri, lambda: self._read(group), 3, self._first_wait_s))
        offset = index - int(self._ends[group]) + rows
        return {name: table[name][offset].as_py() for name in fields}

    def _read(self, group: int) -> pa.Table:
        self.reads.append(group)
        filesystem, path = storage.arrow_filesystem(self.groups[group][0])
        with filesystem.open_input_file(path) as file:
            return pq.ParquetFile(file, page_checksum_verification=True).read_row_group(self.groups[group][1])


def write_shards(uri: str, num_shards: int, rows: int, rows_per_group: int) -> str:
    for shard in range(num_shards):
        numbers = np.arange(shard * rows, (shard + 1) * rows)
        table = pa.table({"number": numbers, "latents": [bytes(np.full(64, number, np.int64)) for number in numbers]})
        sink = pa.BufferOutputStream()
        pq.write_table(
            table,
            sink,
            row_group_size=rows_per_group,
            compression="none",
            use_dictionary=False,
            write_page_checksum=True,
        )
        storage.write_bytes(storage.join(uri, f"{shard:04d}.parquet"), sink.getvalue().to_pybytes())
    return uri


def collate(rows: list[Row]) -> dict[str, Any]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def numbers(
    dataset: ClipDataset, plan: BatchPlan, samples_seen: int, num_steps: int, **options: Any
) -> list[list[int]]:
    """Return the clips of each step of one worker."""
    loader = Loader(dataset, ("number",), collate, plan, seed=7, **options)
    return [
        [number for micro in step for number in micro.batch["number"]] for step in loader.steps(samples_seen, num_steps)
    ]


def batches_of(dataset: ClipDataset, batch: int, buffer: int, num_steps: int, first: int = 0) -> list[list[int]]:
    batches = Batches(dataset, batch, seed=7, shuffle_buffer=buffer)
    return [batches.rows(step * batch).tolist() for step in range(first, first + num_steps)]


def write_latents(uri: str, num_clips: int) -> LatentsTable:
    """Write and open a table of latents as the encode job does: clip i has latents of value i, and 8 or 24 fps."""
    spec = ClipSpec(num_frames=1, fps=24.0, size=16)
    schema = latents_schema([2], captioned=False)
    rows = [_latents_row(number) for number in range(num_clips)]
    planned = [{name: row[name] for name in ("item_id", "width", "height", "fps")} for row in rows]
    with Lease(uri) as lease, Ledger(uri, "test", lease) as ledger:
        ledger.plan([pa.RecordBatch.from_pylist(planned)])
        for start in range(0, num_clips, 16):
            unit = rows[start : start + 16]
            outcomes = [Outcome(row["item_id"], OK) for row in unit]
            part = pa.Table.from_pylist(unit, schema=schema)
            ledger.add([write_part(uri, f"unit-{start}", part, outcomes, "test", rows_per_group=ROWS_PER_GROUP)])
        for pack in ledger.plan_packs(8000):
            pack_shard(uri, pack)
        manifest = {"kind": KIND, "schema_version": SCHEMA_VERSION, "latent_sizes": [2], "has_captions": False}
        manifest |= {"encoder_fingerprint": "none", "clip": spec.as_dict()}
        ledger.publish(manifest, ledger.index_rows())
    return LatentsTable.open(uri)


def _latents_row(number: int) -> dict[str, Any]:
    item_id = f"clip-{number:04d}"
    texts = dict.fromkeys(("source", "version", "caption", "decoder"), "")
    rest = {"frame_indices": [0], "fps": 24.0 if number % 3 else 8.0, "width": 16, "height": 16}
    array = np.full((1, 4, 2, 2), number, np.float16)
    arrays = {"latents_2": array, "latents_2_logvar": array}
    return latents_row({"item_id": item_id, "clip_id": item_id, **texts, **rest}, arrays)
