"""Tables of latents: how they lie on disk, and how training reads them.

A table is a folder: `shards/*.parquet`, `errors.parquet`, and `manifest.json`, which is written last and is the only
thing that readers trust. Arrays are plain columns (bytes and a shape), so any parquet reader can open them.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from videogen import storage
from videogen.config import CascadeConfig
from videogen.data.clips import Clip, Failure
from videogen.data.dataset import ByteCache, Row
from videogen.data.isolated import shared_decoder
from videogen.errors import UserError

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
ERRORS_NAME = "errors.parquet"

_CLIP_FIELDS = ("clip_id", "source", "fps", "width", "height", "caption")
_ROWS_PER_GROUP = 8
"""Rows that one random access reads: 20 MB at 512 x 512 pixels and 61 frames."""
_CACHE_BYTES = 512 << 20
_ERRORS_KEY = b"videogen.errors"


def shard_schema(latent_sizes: Sequence[int], captioned: bool) -> pa.Schema:
    """Return the columns of a shard."""
    fields = [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("frame_indices", pa.list_(pa.int32()), nullable=False),
        pa.field("fps", pa.float32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("caption", pa.string()),
    ]
    arrays = [f"latents_{size}" for size in latent_sizes] + (["prompt_embeds"] if captioned else [])
    for name in arrays:
        fields.append(pa.field(name, pa.large_binary(), nullable=False))
        fields.append(pa.field(f"{name}_shape", pa.list_(pa.int32()), nullable=False))
    return pa.schema(fields)


def shard_row(clip: Clip, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the row of one clip; arrays are stored as float16 in C order."""
    row: dict[str, Any] = {name: getattr(clip, name) for name in _CLIP_FIELDS}
    row |= {"source": clip.source, "frame_indices": list(clip.frame_indices)}
    for name, array in arrays.items():
        row[name] = np.ascontiguousarray(array, np.float16).tobytes()
        row[f"{name}_shape"] = list(array.shape)
    return row


def shard_bytes(rows: list[dict[str, Any]], failures: Sequence[Failure], schema: pa.Schema) -> bytes:
    """Return a shard as a parquet file.

    The clips that failed travel in its footer: the file is then the whole, atomic record of its unit of work.
    """
    errors = json.dumps([vars(failure) for failure in failures]).encode()
    table = pa.Table.from_pylist(rows, schema=schema.with_metadata({_ERRORS_KEY: errors}))
    sink = pa.BufferOutputStream()
    # Latents are noise to a compressor.
    pq.write_table(table, sink, row_group_size=_ROWS_PER_GROUP, compression="none", use_dictionary=False)
    return sink.getvalue().to_pybytes()


def read_shard_record(uri: str) -> tuple[int, int, list[Failure]]:
    """Return the rows, bytes and failures of a finished shard from its footer."""
    filesystem, path = storage.arrow_filesystem(uri)
    with filesystem.open_input_file(path) as file:
        metadata = pq.read_metadata(file)
        failures = json.loads((metadata.metadata or {})[_ERRORS_KEY])
        return metadata.num_rows, file.size(), [Failure(**failure) for failure in failures]


def write_errors(uri: str, failures: Sequence[Failure]) -> None:
    """Write the table of inputs that gave no row: uri, stage, error, attempt."""
    schema = pa.schema([("uri", pa.string()), ("stage", pa.string()), ("error", pa.string()), ("attempt", pa.int32())])
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([vars(failure) for failure in failures], schema=schema), sink)
    storage.write_bytes(storage.join(uri, ERRORS_NAME), sink.getvalue().to_pybytes())


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
    """

    def __init__(self, uri: str, manifest: dict[str, Any]) -> None:
        self.uri = uri
        self.manifest = manifest
        self._groups: ByteCache[pa.Table] = ByteCache(_CACHE_BYTES)
        self._frames: ByteCache[np.ndarray] = ByteCache(_CACHE_BYTES)
        self._ends = np.cumsum([shard["rows"] for shard in manifest["shards"]])

    @classmethod
    def open(cls, uri: str) -> "LatentsTable":
        """Open the table at `uri`.

        Raises:
            UserError: no finished table there, or one of another schema version.
        """
        uri = storage.absolute(uri)
        storage.require_readable(uri, "Latents")
        if not storage.exists(storage.join(uri, MANIFEST_NAME)):
            raise UserError(
                f"Latents {uri!r} hold no {MANIFEST_NAME}: finish `jobs/encode_latents.py --output {uri}` first."
            )
        manifest = storage.read_json(storage.join(uri, MANIFEST_NAME))
        version = manifest.get("schema_version")
        if version != SCHEMA_VERSION:
            raise UserError(
                f"Latents {uri!r} have schema version {version!r}, this release reads {SCHEMA_VERSION}: encode again."
            )
        if not manifest["counts"]["ok"]:
            raise UserError(f"Latents {uri!r} hold no clip: see {ERRORS_NAME} there for the reasons.")
        return cls(uri, manifest)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the manifest, and through the shards' names of all content."""
        return hashlib.sha256(json.dumps(self.manifest, sort_keys=True).encode()).hexdigest()[:20]

    @property
    def encoder_fingerprint(self) -> str:
        """The autoencoder that made these latents."""
        return self.manifest["encoder_fingerprint"]

    @property
    def has_captions(self) -> bool:
        """Whether rows have `caption` and `prompt_embeds`."""
        return self.manifest["has_captions"]

    def require_matches(self, config: CascadeConfig) -> None:
        """Raise `UserError` unless these are latents for this cascade: length, sizes and channels."""
        manifest = self.manifest
        missing = [size for size in config.latent_sizes if size not in manifest["latent_sizes"]]
        if missing:
            raise UserError(
                f"Latents {self.uri!r} have the sizes {manifest['latent_sizes']}, but preset {config.name!r} needs "
                f"{missing[0]}: encode again with this preset."
            )
        for key, wanted in (
            ("num_frames", config.num_output_frames),
            ("latent_channels", config.autoencoder.model.latent_channels),
        ):
            if manifest[key] != wanted:
                raise UserError(
                    f"Latents {self.uri!r} have {key} {manifest[key]}, but preset {config.name!r} needs {wanted}: "
                    f"encode again with this preset."
                )

    def __len__(self) -> int:
        return int(self.manifest["counts"]["ok"])

    def row(self, index: int, fields: Sequence[str]) -> Row:
        """Return fields of one clip.

        `latents_{s}` float32 (F, C, s, s), posterior mean without scaling factor; `prompt_embeds` float32 (L, D);
        `caption`, `clip_id`, `source` str; `fps` float, `width`, `height` int; `frame_indices` int32 (F,);
        `frames` uint8 (F, H, W, 3), decoded again from the source.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)} in {self.uri!r}")
        shard = int(np.searchsorted(self._ends, index, side="right"))
        within = index - (int(self._ends[shard - 1]) if shard else 0)
        columns = sorted({name for field in fields for name in self._columns_of(field)})
        group, offset = divmod(within, _ROWS_PER_GROUP)
        table = self._groups.get((shard, group, tuple(columns)), lambda: self._read_group(shard, group, columns))
        record = {name: table[name][offset] for name in columns}
        return {field: self._value(field, record) for field in fields}

    def _columns_of(self, field: str) -> tuple[str, ...]:
        if field == "frames":
            return ("clip_id", "source", "frame_indices")
        if field in {*_CLIP_FIELDS, "frame_indices"}:
            return (field,)
        if field in self._array_fields:
            return (field, f"{field}_shape")
        raise KeyError(f"{field!r} is not a field of {self.uri!r}; it has {', '.join(self._array_fields)}")

    @cached_property
    def _array_fields(self) -> tuple[str, ...]:
        latents = tuple(f"latents_{size}" for size in self.manifest["latent_sizes"])
        return (*latents, "prompt_embeds") if self.has_captions else latents

    def _read_group(self, shard: int, group: int, columns: list[str]) -> pa.Table:
        filesystem, path = storage.arrow_filesystem(storage.join(self.uri, self.manifest["shards"][shard]["name"]))
        with filesystem.open_input_file(path) as file:
            return pq.ParquetFile(file).read_row_group(group, columns=columns)

    def _value(self, field: str, record: dict[str, pa.Scalar]) -> Any:
        if field == "frames":
            return self._frames.get(record["clip_id"].as_py(), lambda: self._decode(record))
        if field == "frame_indices":
            return np.asarray(record[field].as_py(), np.int32)
        if field in self._array_fields:
            flat = np.frombuffer(record[field].as_buffer(), np.float16)
            return flat.reshape(record[f"{field}_shape"].as_py()).astype(np.float32)
        return record[field].as_py()

    def _decode(self, record: dict[str, pa.Scalar]) -> np.ndarray:
        indices = record["frame_indices"].as_py()
        return shared_decoder().read_frames(record["source"].as_py(), indices, self.manifest["clip"]["size"])


def discover_tables(uri: str) -> list[LatentsTable]:
    """Return the table at `uri`, or every table one level below it.

    Raises:
        UserError: no table there, or tables of different encoders.
    """
    uri = storage.absolute(uri)
    storage.require_readable(uri, "Latents")
    folders = [uri, *storage.list_dirs(uri)]
    found = [folder for folder in folders if storage.exists(storage.join(folder, MANIFEST_NAME))]
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
