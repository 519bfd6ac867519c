"""Reader of latents tables: rows for training, their shapes and blocks, and checks against a cascade."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
import pyarrow as pa

from videogen import storage
from videogen.cache import ByteCache
from videogen.data.datasets.clips import ClipSpec
from videogen.data.datasets.dataset import Shapes
from videogen.data.datasets.latents_schema import KIND, LATENTS, array_columns
from videogen.data.isolation import shared_decoder
from videogen.data.sources import find_versions, version_mismatch
from videogen.data.tables import (
    ERRORS_NAME,
    MANIFEST_NAME,
    PublishedTable,
    Row,
    TableKind,
    conjunction,
    kind_of,
)
from videogen.data.video import VideoError
from videogen.errors import UserError
from videogen.hashing import content_hash
from videogen.stages import CascadeConfig

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


class LatentsTable(PublishedTable):
    """A published latents table as a `ClipDataset`.

    Args:
        uri: absolute URI of its folder.
        manifest: validated manifest.
        kind: `LATENTS`.
        where: SQL condition over the columns of the index; None selects all rows.
    """

    kinds = (LATENTS,)
    label = "Latents table"
    cache_bytes = _CACHE_BYTES

    def __init__(self, uri: str, manifest: dict[str, Any], kind: TableKind, where: str | None = None) -> None:
        super().__init__(uri, manifest, kind)
        self.where = where
        self._frames: ByteCache[np.ndarray] = ByteCache(_CACHE_BYTES)

    @classmethod
    def open(cls, uri: str, what: str | None = None, kinds: Sequence[TableKind] = ()) -> Self:
        """Open the latents table at `uri`.

        Raises:
            UserError: as of `PublishedTable.open`, or no clip could be encoded.
        """
        table = super().open(uri, what, kinds)
        if not table.manifest["counts"]["ok"]:
            raise UserError(
                f"{what or cls.label} {table.uri!r} holds no clip: see {ERRORS_NAME} there for the reasons."
            )
        return table

    def select(self, where: str) -> Self:
        """Return the rows that fulfil the SQL condition `where`, in the same order.

        Raises:
            UserError: `where` is not a condition over the columns of the index.
        """
        return type(self)(self.uri, self.manifest, self.kind, self._within_selection(where))

    def batches(self, columns: Sequence[str] | None = None, where: str | None = None) -> Iterator[pa.RecordBatch]:
        """Yield rows of the index, as `PublishedTable.batches`, within the selection."""
        return super().batches(columns, self.where if where is None else self._within_selection(where))

    def _within_selection(self, where: str) -> str:
        return where if self.where is None else conjunction(self.where, where)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that determines the rows and their order: the content of the table, and the selection."""
        chosen = "" if self.where is None else hashlib.sha256(self._locations.tobytes()).hexdigest()
        return content_hash(self.kind.content_of(self.manifest), chosen)

    @property
    def encoder_fingerprint(self) -> str:
        """Fingerprint of the autoencoder that made these latents."""
        return str(self.manifest["encoder_fingerprint"])

    @property
    def has_captions(self) -> bool:
        """Whether rows have `caption` and `prompt_embeds`."""
        return bool(self.manifest["has_captions"])

    def require_matches(self, config: CascadeConfig) -> None:
        """Raise `UserError` unless these latents match a cascade in length, sizes, shapes and channels."""
        manifest = self.manifest
        missing = [size for size in config.latent_sizes if size not in manifest["latent_sizes"]]
        if missing:
            raise UserError(
                f"Latents table {self.uri!r} has the sizes {manifest['latent_sizes']}, but preset {config.name!r} "
                f"needs {missing[0]}: encode again with this preset."
            )
        for key, wanted in (
            ("num_frames", config.clip_lengths),
            ("latent_channels", (config.autoencoder.model.latent_channels,)),
        ):
            if manifest[key] not in wanted:
                raise UserError(
                    f"Latents table {self.uri!r} has {key} {manifest[key]}, but preset {config.name!r} needs "
                    f"{' or '.join(map(str, wanted))}: encode again with this preset."
                )
        theirs, ours = (", ".join(map(str, sizes)) for sizes in (self.clip_spec.frame_sizes, config.frame_sizes))
        if theirs != ours:
            raise UserError(
                f"Latents table {self.uri!r} is of frames of {theirs} pixels, but preset {config.name!r} is for "
                f"{ours}: set the aspect_ratios that it was encoded with, or encode again with this preset."
            )

    @cached_property
    def clip_spec(self) -> ClipSpec:
        """Length, frame rate and size of the encoded clips."""
        return ClipSpec.from_dict(self.manifest["clip"])

    def shapes(self) -> Shapes:
        """Return the shape of every row's frames, from the index; no shard is opened."""
        width, height = np.zeros((2, len(self)), np.int64)
        fps = np.zeros(len(self), np.float32)
        start = 0
        for batch in self.batches(["width", "height", "fps"]):
            rows = slice(start, start + len(batch))
            width[rows], height[rows], fps[rows] = (batch[name].to_numpy() for name in ("width", "height", "fps"))
            start += len(batch)
        return self.clip_spec.shapes(width, height, fps)

    def __len__(self) -> int:
        return int(self.manifest["counts"]["ok"]) if self.where is None else len(self._locations)

    def block_ends(self) -> np.ndarray:
        """Return int64 (blocks,): the end of each run of rows in one row group."""
        groups = np.stack([self._locations[:, 0], self._locations[:, 1] // self._rows_per_group[self._locations[:, 0]]])
        changes = np.flatnonzero((groups[:, 1:] != groups[:, :-1]).any(axis=0)) + 1
        return np.append(changes, len(self._locations)).astype(np.int64)

    def row(self, index: int, fields: Sequence[str]) -> Row:
        """Return fields of one clip.

        `latents_{s}` float16 (F, C, h, w), s x s or about as many, posterior mean without scaling factor, and
        `latents_{s}_logvar` its log-variance; `prompt_embeds` float16 (L, D); `caption`, `clip_id`, `source`,
        `decoder` str; `fps` float, `width`, `height` int; `frame_indices` int32 (F,); `frames` uint8 (F, H, W, 3),
        decoded again from the source.

        Arrays are read-only views of the file's float16 values: torch converts a whole batch much faster than numpy
        converts single arrays.

        Raises:
            VideoError: `frames` of a source that has changed since it was encoded.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)} in {self.uri!r}")
        shard, within = (int(value) for value in self._locations[index])
        columns = sorted({name for field in fields for name in self._columns_of(field)})
        group, offset = divmod(within, int(self._rows_per_group[shard]))
        table = self.cached_row_group(shard, group, columns)
        record = {name: table[name][offset] for name in columns}
        return {field: self._value(field, record) for field in fields}

    @cached_property
    def _locations(self) -> np.ndarray:
        """Location of each row: shard and row in it, int32 (rows, 2)."""
        parts = [
            np.stack([batch["shard"].to_numpy(), batch["row"].to_numpy()], axis=1)
            for batch in self.batches(["shard", "row"])
        ]
        return np.concatenate(parts) if parts else np.zeros((0, 2), np.int32)

    @cached_property
    def _rows_per_group(self) -> np.ndarray:
        return np.array([shard.rows_per_group for shard in self.shards], np.int64)

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
    """Open the latents table at `uri`, or all latents tables one level below it.

    Raises:
        UserError: there is no table, or the tables come from different encoders.
    """
    uri = storage.absolute(uri)
    storage.require_readable(uri, LatentsTable.label)
    folders = [uri, *storage.list_dirs(uri)]
    # A clips table may be beside or inside a latents table.
    found = [folder for folder in folders if kind_of(folder) == KIND]
    if not found:
        raise UserError(
            f"Folder {uri!r} holds no {MANIFEST_NAME} of a latents table, nor does a folder in it: run "
            f"{LATENTS.written_by} first."
        )
    tables = [LatentsTable.open(folder) for folder in found]
    for table in tables[1:]:
        require_same_encoder(table, tables[0].encoder_fingerprint, f"{tables[0].uri!r}")
    return tables


def require_same_encoder(table: LatentsTable, fingerprint: str, other: str) -> None:
    """Raise `UserError` unless the autoencoder with this fingerprint made `table`; `other` names its owner."""
    if table.encoder_fingerprint != fingerprint:
        raise UserError(
            f"Latents table {table.uri!r} comes from another encoder ({table.encoder_fingerprint}) than {other} "
            f"({fingerprint}): encode both with the same --autoencoder."
        )
