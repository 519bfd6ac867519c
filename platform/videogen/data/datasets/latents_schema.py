"""Schema of latents tables: columns of a shard, manifest, and the row of a clip.

Arrays are plain columns, so any parquet reader opens them: bytes in C order, shape, and numpy's name of the type.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from videogen.data.tables import TableKind, TableManifest

KIND = "latents"
SCHEMA_VERSION = 3
"""Version 3 has the columns of version 2, but of frames with square pixels."""
ROWS_PER_GROUP = 8
"""Rows that one random access reads: 20 MB at 512 x 512 pixels and 61 frames."""
DTYPE = np.float16
_CLIP_COLUMNS = ("item_id", "clip_id", "source", "version", "frame_indices", "fps", "width", "height", "caption")
"""Columns of the clips table that a row of latents repeats."""


class LatentsManifest(TableManifest):
    """Manifest of a latents table: the keys that its readers need."""

    encoder_fingerprint: str
    latent_sizes: list[int]
    clip: dict[str, Any]
    has_captions: bool


LATENTS = TableKind(
    KIND,
    SCHEMA_VERSION,
    LatentsManifest,
    written_by="jobs/encode_latents.py",
    provenance_keys=("facts", "decoders"),
)


def latents_schema(latent_sizes: Sequence[int], captioned: bool) -> pa.Schema:
    """Return the columns of a shard."""
    text, number = pa.string(), pa.int32()
    fields = [
        pa.field("item_id", text, nullable=False),
        pa.field("clip_id", text, nullable=False),
        pa.field("source", text, nullable=False),
        pa.field("version", text, nullable=False),
        pa.field("frame_indices", pa.list_(number), nullable=False),
        pa.field("fps", pa.float32(), nullable=False),
        pa.field("width", number, nullable=False),
        pa.field("height", number, nullable=False),
        pa.field("caption", text),
        pa.field("decoder", text, nullable=False),
    ]
    for name in array_columns(latent_sizes, captioned):
        fields.append(pa.field(name, pa.large_binary(), nullable=False))
        fields.append(pa.field(f"{name}_shape", pa.list_(number), nullable=False))
        fields.append(pa.field(f"{name}_dtype", text, nullable=False))
    return pa.schema(fields)


def array_columns(latent_sizes: Sequence[int], captioned: bool) -> tuple[str, ...]:
    """Return the names of the arrays of a row: mean and log-variance at each size, and the embedded caption."""
    latents = [name for size in latent_sizes for name in (f"latents_{size}", f"latents_{size}_logvar")]
    return (*latents, "prompt_embeds") if captioned else tuple(latents)


def latents_row(item: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the row of one clip; arrays are stored as float16."""
    row: dict[str, Any] = {name: item[name] for name in (*_CLIP_COLUMNS, "decoder")}
    for name, array in arrays.items():
        row[name] = np.ascontiguousarray(array, DTYPE).tobytes()
        row[f"{name}_shape"] = list(array.shape)
        row[f"{name}_dtype"] = np.dtype(DTYPE).name
    return row
