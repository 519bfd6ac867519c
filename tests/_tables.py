"""Small finished tables, written through the real ledger, for tests of table readers."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from videogen.data.datasets.clips_schema import clips_schema
from videogen.data.datasets.latents_schema import latents_schema
from videogen.data.sources import find_versions
from videogen.data.tables import Ledger, Outcome, pack_shard, write_part

SCORES = ("motion", "sharpness")
LATENT_SIZES = (4, 8)


def write_table(uri, manifest, items, rows_of_item, failures, columns, verdicts=None, rows_per_group=2):
    """Write a table of batches of two items each; a failed item has (stage, error)."""
    identity = "0123456789"
    with Ledger(uri, identity) as ledger:
        ids = [item["item_id"] for item in items]
        ledger.plan([pa.record_batch({"item_id": ids, "uri": [item["uri"] for item in items]})])
        for start in range(0, len(items), 2):
            part, outcomes = [], []
            for item in items[start : start + 2]:
                key = item["item_id"]
                rows = rows_of_item.get(key, [])
                stage, error = failures.get(key, ("", ""))
                outcomes.append(Outcome(key, "failed" if error else "ok", uri=item["uri"], stage=stage, error=error))
                part += rows
            table = pa.Table.from_pylist(part, schema=manifest["schema"])
            ledger.add([write_part(uri, f"unit{start}", table, outcomes, identity, rows_per_group=rows_per_group)])
        for pack in ledger.plan_packs(target_bytes=20_000):
            pack_shard(uri, pack)
        batches = ledger.index_rows(columns=[name for name in columns if name != "item_id"])
        said = {name: value for name, value in manifest.items() if name != "schema"}
        return ledger.publish(said, (_judged(batch, verdicts) for batch in batches))


def _judged(batch, verdicts):
    if verdicts is None:
        return batch.drop_columns(["uri"])
    dropped = [verdicts.get(key, "") for key in batch["clip_id"].to_pylist()]
    kept = batch.drop_columns(["uri"])
    return kept.append_column("dropped_by", pa.array(dropped, pa.string()))


def clips_table(folder: Path, videos: list[str], caption: str = "a ball", container: str = "mp4") -> list[dict]:
    """Write a clips table of two clips of each video, the last of which has failed; return the rows.

    The second clip of the first video is dropped by the rule "still".
    """
    schema = clips_schema(SCORES)
    items, rows = [], {}
    for number, uri in enumerate(videos):
        key = f"video{number}"
        items.append({"item_id": key, "uri": uri})
        rows[key] = [
            filled(
                schema,
                item_id=key,
                clip_id=f"{key}-{clip}",
                source=uri,
                version=version_of(uri),
                container=container,
                caption=None if number == 1 else f"{caption} {number}",
                frame_indices=list(range(15 * clip, 15 * clip + 15)),
                motion=0.1 + 0.2 * number + 0.05 * clip,
                sharpness=None if clip else 5.0,
                thumbnail=jpeg(40 * number + 90 * clip),
            )
            for clip in range(2)
        ]
    failed = items[-1]["item_id"]
    del rows[failed]
    index = [name for name in schema.names if name not in ("thumbnail", "embedding")]
    all_rows = [row for one in rows.values() for row in one]
    write_table(
        str(folder),
        {
            "kind": "clips",
            "schema_version": 2,
            "spec": {"num_frames": 15, "fps": 16.0, "scores": list(SCORES)},
            "scores": list(SCORES),
            "policy": {},
            "has_captions": True,
            "schema": schema,
        },
        items,
        rows,
        {failed: ("probe", "it has 9 frames, fewer than the 15 of a clip")},
        index,
        {all_rows[1]["clip_id"]: "still"},
    )
    return all_rows


def latents_table(folder: Path, sources: list[str]) -> list[dict]:
    """Write a table of latents, one row a source; return the arrays of each row with its clip_id."""
    schema = latents_schema(LATENT_SIZES, captioned=True)
    items, rows, told = [], {}, []
    generator = np.random.default_rng(0)
    for number, uri in enumerate(sources):
        key = f"clip{number:02}"
        arrays = {"prompt_embeds": generator.normal(size=(3, 5)).astype(np.float16)}
        for size in LATENT_SIZES:
            for name in (f"latents_{size}", f"latents_{size}_logvar"):
                arrays[name] = generator.normal(size=(15, 4, size, size)).astype(np.float16)
        items.append({"item_id": key, "uri": uri})
        values: dict[str, Any] = {"item_id": key, "clip_id": key, "source": uri, "caption": f"a ball {number}"}
        values["version"] = version_of(uri)
        for name, array in arrays.items():
            values |= {name: array.tobytes(), f"{name}_shape": array.shape, f"{name}_dtype": array.dtype.name}
        rows[key] = [filled(schema, **values, frame_indices=list(range(15)))]
        told.append({"clip_id": key, "caption": values["caption"], **arrays})
    scalars = [field.name for field in schema if not any(part in field.name for part in ("latents", "embeds"))]
    manifest = {"kind": "latents", "schema_version": 3, "schema": schema, "clip": {"size": 64}}
    manifest |= {"encoder_fingerprint": "none", "latent_sizes": list(LATENT_SIZES), "has_captions": True}
    write_table(str(folder), manifest, items, rows, {}, scalars)
    return told


def version_of(uri: str) -> str:
    """Return the version of a local file, and a placeholder for any other URI."""
    return find_versions([uri])[0][0] or "x" if uri.startswith("/") else "x"


def filled(schema: pa.Schema, **values) -> dict:
    """Return a row with these values, and placeholders in the other required columns."""
    nothing = {pa.string(): "x", pa.bool_(): False}
    row = {field.name: None if field.nullable else nothing.get(field.type, 1) for field in schema}
    assert set(values) <= set(row), set(values) - set(row)
    return row | values


def jpeg(level: int) -> bytes:
    """Return a grey thumbnail."""
    buffer = io.BytesIO()
    Image.new("RGB", (384, 128), (level,) * 3).save(buffer, "JPEG")
    return buffer.getvalue()
