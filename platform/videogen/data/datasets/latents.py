"""Tables of latents: how they lie on disk, and how training reads them.

A table is a folder: `shards/*.parquet`, `errors.parquet`, and `manifest.json`, which is written last and is the only
thing that readers trust. Arrays are plain columns (bytes and a shape), so any parquet reader can open them.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from videogen import storage
from videogen.config import CascadeConfig
from videogen.data.datasets.clips import ClipSpec
from videogen.data.datasets.dataset import ByteCache, Row, Shapes
from videogen.data.datasets.latents_schema import KIND, SCHEMA_VERSION, array_columns
from videogen.data.isolation import shared_decoder
from videogen.data.sources import find_versions, version_mismatch
from videogen.data.tables.files import ERRORS_NAME, MANIFEST_NAME
from videogen.data.tables.manifest import require_whole
from videogen.data.tables.published import content_of, read_manifest
from videogen.data.tables.query import both
from videogen.data.tables.shard_reading import read_shard
from videogen.data.video import VideoError
from videogen.errors import UserError
from videogen.hashing import content_hash

_VALUES = ("clip_id", "source", "fps", "width", "height", "caption", "decoder")
_CACHE_BYTES = 512 << 20


def encoder_fingerprint(folder: str) -> str:
    """Return the hash of a saved model: its configuration and its weights, wherever the folder lies.

    Raises:
        UserError: not a folder with a `config.json` and safetensors.
    """
    storage.require_readable(folder, "Model folder")
    files = {uri.rsplit("/", 1)[-1]: uri for uri in storage.list_files(folder, [".safetensors", "config.json"])}
    weights = sorted(name for name in files if name.endswith(".safetensors"))
    if "config.json" not in files or not weights:
        raise UserError(f"Model folder {folder!r} has no config.json or no .safetensors file: give a saved model.")
    config = storage.read_json(files["config.json"])
    # Keys such as _name_or_path say where a model came from, not what it computes.
    config = {key: value for key, value in config.items() if not key.startswith("_")}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in weights:
        digest.update(storage.read_bytes(files[name]))
    return digest.hexdigest()[:20]


class LatentsTable:
    """A finished table of latents, row by row.

    Args:
        uri: its folder.
        manifest: what `open` has read and checked.
        where: SQL expression over the columns of the index; None takes every row.
    """

    def __init__(self, uri: str, manifest: dict[str, Any], where: str | None = None) -> None:
        self.uri = uri
        self.manifest = manifest
        self.where = where
        self._groups: ByteCache[pa.Table] = ByteCache(_CACHE_BYTES)
        self._frames: ByteCache[np.ndarray] = ByteCache(_CACHE_BYTES)
        self._footers: dict[int, Any] = {}

    @classmethod
    def open(cls, uri: str) -> "LatentsTable":
        """Open the table at `uri`.

        Raises:
            UserError: no finished table of latents there, or one of another schema version.
        """
        uri = storage.absolute(uri)
        storage.require_readable(uri, "Latents")
        manifest = read_manifest(uri)
        if manifest is None:
            raise UserError(
                f"Latents {uri!r} hold no {MANIFEST_NAME}: finish `jobs/encode_latents.py --output {uri}` first."
            )
        kind = manifest.get("kind", KIND)
        if kind != KIND:
            raise UserError(
                f"Latents {uri!r} are a table of {kind}: encode it first with jobs/encode_latents.py --input {uri}."
            )
        version = manifest.get("schema_version")
        if version != SCHEMA_VERSION:
            raise UserError(
                f"Latents {uri!r} have schema version {version!r}, this release reads {SCHEMA_VERSION}: encode again."
            )
        require_whole({"kind": kind, **manifest}, storage.join(uri, MANIFEST_NAME))
        if not manifest["counts"]["ok"]:
            raise UserError(f"Latents {uri!r} hold no clip: see {ERRORS_NAME} there for the reasons.")
        return cls(uri, manifest)

    def select(self, where: str) -> "LatentsTable":
        """Return the rows for which the SQL expression `where` holds, in the same order.

        Raises:
            UserError: `where` is no expression over the columns of the index.
        """
        return type(self)(self.uri, self.manifest, where if self.where is None else both(self.where, where))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that decides rows and their order: through the manifest of all content, and of what is chosen."""
        chosen = "" if self.where is None else hashlib.sha256(self._places.tobytes()).hexdigest()
        return content_hash(content_of(self.manifest), chosen)

    @property
    def encoder_fingerprint(self) -> str:
        """The autoencoder that made these latents."""
        return self.manifest["encoder_fingerprint"]

    @property
    def has_captions(self) -> bool:
        """Whether rows have `caption` and `prompt_embeds`."""
        return self.manifest["has_captions"]

    def require_matches(self, config: CascadeConfig) -> None:
        """Raise `UserError` unless these are latents for this cascade: length, sizes, shapes and channels."""
        manifest = self.manifest
        missing = [size for size in config.latent_sizes if size not in manifest["latent_sizes"]]
        if missing:
            raise UserError(
                f"Latents {self.uri!r} have the sizes {manifest['latent_sizes']}, but preset {config.name!r} needs "
                f"{missing[0]}: encode again with this preset."
            )
        for key, wanted in (
            ("num_frames", config.clip_lengths),
            ("latent_channels", (config.autoencoder.model.latent_channels,)),
        ):
            if manifest[key] not in wanted:
                raise UserError(
                    f"Latents {self.uri!r} have {key} {manifest[key]}, but preset {config.name!r} needs "
                    f"{' or '.join(map(str, wanted))}: encode again with this preset."
                )
        theirs, ours = (", ".join(map(str, sizes)) for sizes in (self.clip_spec.frame_sizes, config.frame_sizes))
        if theirs != ours:
            raise UserError(
                f"Latents {self.uri!r} are of frames of {theirs} pixels, but preset {config.name!r} is for {ours}: set "
                f"the aspect_ratios that they were encoded with, or encode again with this preset."
            )

    @cached_property
    def clip_spec(self) -> ClipSpec:
        """What the clips look like that were encoded."""
        return ClipSpec.from_dict(self.manifest["clip"])

    def shapes(self) -> Shapes:
        """Return the shape of every row's frames, by size and rate of its clip in the index; no shard is opened."""
        width, height = np.zeros((2, len(self)), np.int64)
        fps = np.zeros(len(self), np.float32)
        start = 0
        for batch in self._index(["width", "height", "fps"]):
            rows = slice(start, start + len(batch))
            width[rows], height[rows], fps[rows] = (batch[name].to_numpy() for name in ("width", "height", "fps"))
            start += len(batch)
        return self.clip_spec.shapes(width, height, fps)

    def __len__(self) -> int:
        return int(self.manifest["counts"]["ok"]) if self.where is None else len(self._places)

    def block_ends(self) -> np.ndarray:
        """Return int64 (blocks,): where each run of rows that lie in one row group ends."""
        groups = np.stack([self._places[:, 0], self._places[:, 1] // self._rows_per_group[self._places[:, 0]]])
        changes = np.flatnonzero((groups[:, 1:] != groups[:, :-1]).any(axis=0)) + 1
        return np.append(changes, len(self._places)).astype(np.int64)

    def row(self, index: int, fields: Sequence[str]) -> Row:
        """Return fields of one clip.

        `latents_{s}` float16 (F, C, h, w), s x s or about as many, posterior mean without scaling factor, and
        `latents_{s}_logvar` its log-variance; `prompt_embeds` float16 (L, D); `caption`, `clip_id`, `source`,
        `decoder` str; `fps` float, `width`, `height` int; `frame_indices` int32 (F,); `frames` uint8 (F, H, W, 3),
        decoded again from the source.

        Arrays of float16 are what the file holds, read-only and not copied: a batch is converted as a whole, which
        torch does fifteen times as fast as numpy does.

        Raises:
            VideoError: `frames` of a source that is not what was encoded.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)} in {self.uri!r}")
        shard, within = (int(value) for value in self._places[index])
        columns = sorted({name for field in fields for name in self._columns_of(field)})
        group, offset = divmod(within, int(self._rows_per_group[shard]))
        table = self._groups.get((shard, group, tuple(columns)), lambda: self._read_group(shard, group, columns))
        record = {name: table[name][offset] for name in columns}
        return {field: self._value(field, record) for field in fields}

    @cached_property
    def _places(self) -> np.ndarray:
        """Where each row lies: shard and row in it, int32 (rows, 2)."""
        parts = [
            np.stack([batch["shard"].to_numpy(), batch["row"].to_numpy()], axis=1)
            for batch in self._index(["shard", "row"])
        ]
        return np.concatenate(parts) if parts else np.zeros((0, 2), np.int32)

    def _index(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        from videogen.data.tables.index import read_index

        return read_index(self.uri, self.manifest, columns, self.where)

    @cached_property
    def _rows_per_group(self) -> np.ndarray:
        return np.array([shard["rows_per_group"] for shard in self.manifest["shards"]], np.int64)

    def _columns_of(self, field: str) -> tuple[str, ...]:
        if field == "frames":
            return ("clip_id", "source", "version", "frame_indices", "width", "height", "decoder")
        if field in {*_VALUES, "frame_indices"}:
            return (field,)
        if field in self._array_fields:
            return (field, f"{field}_shape", f"{field}_dtype")
        raise KeyError(f"{field!r} is not a field of {self.uri!r}; it has {', '.join(self._array_fields)}")

    @cached_property
    def _array_fields(self) -> tuple[str, ...]:
        return array_columns(self.manifest["latent_sizes"], self.has_captions)

    def _read_group(self, shard: int, group: int, columns: list[str]) -> pa.Table:
        uri = storage.join(self.uri, self.manifest["shards"][shard]["name"])

        def read() -> pa.Table:
            filesystem, path = storage.arrow_filesystem(uri)
            with filesystem.open_input_file(path) as file:
                metadata = self._footers.get(shard) or pq.read_metadata(file)
                self._footers[shard] = metadata
                # Far away, neighbouring columns come in one request.
                shard_file = pq.ParquetFile(
                    file, metadata=metadata, page_checksum_verification=True, pre_buffer=storage.is_remote(uri)
                )
                # The loader's readers are the threads; Arrow's own are one pool for all of them, of OMP_NUM_THREADS.
                return shard_file.read_row_group(group, columns=columns, use_threads=False)

        return read_shard(uri, read)

    def _value(self, field: str, record: dict[str, pa.Scalar]) -> Any:
        if field == "frames":
            return self._frames.get(record["clip_id"].as_py(), lambda: self._decode(record))
        if field == "frame_indices":
            return np.asarray(record[field].as_py(), np.int32)
        if field in self._array_fields:
            flat = np.frombuffer(record[field].as_buffer(), np.dtype(record[f"{field}_dtype"].as_py()))
            flat.flags.writeable = False
            return flat.reshape(record[f"{field}_shape"].as_py())
        return record[field].as_py()

    def _decode(self, record: dict[str, pa.Scalar]) -> np.ndarray:
        names = ("source", "version", "frame_indices", "width", "height", "decoder")
        source, version, indices, width, height, decoder = (record[name].as_py() for name in names)
        ((now, _),) = find_versions([source])
        if reason := version_mismatch(now, version):
            raise VideoError(f"{source}: {reason}")
        return shared_decoder().read_frames(source, indices, self.clip_spec.frame_size(width, height), decoder)


def discover_tables(uri: str) -> list[LatentsTable]:
    """Return the table at `uri`, or every table one level below it.

    Raises:
        UserError: no table there, or tables of different encoders.
    """
    uri = storage.absolute(uri)
    storage.require_readable(uri, "Latents")
    folders = [uri, *storage.list_dirs(uri)]
    # A table of clips beside or in a table of latents is none of these.
    found = [folder for folder in folders if (read_manifest(folder) or {"kind": None}).get("kind", KIND) == KIND]
    if not found:
        raise UserError(
            f"Latents {uri!r} hold no {MANIFEST_NAME}, nor does a folder in it: run `jobs/encode_latents.py` first."
        )
    tables = [LatentsTable.open(folder) for folder in found]
    for table in tables[1:]:
        require_same_encoder(table, tables[0].encoder_fingerprint, f"{tables[0].uri!r}")
    return tables


def require_same_encoder(table: LatentsTable, fingerprint: str, other: str) -> None:
    """Raise `UserError` unless `table` was made by the autoencoder with this fingerprint; `other` names its owner."""
    if table.encoder_fingerprint != fingerprint:
        raise UserError(
            f"Latents {table.uri!r} come from another encoder ({table.encoder_fingerprint}) than {other} "
            f"({fingerprint}): encode both with the same --autoencoder."
        )
