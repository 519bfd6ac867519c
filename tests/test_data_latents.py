"""Tables of latents on disk: read by row, trusted by manifest, never mixed."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from videogen.data.datasets.latents_table import (
    LatentsTable,
    discover_tables,
    encoder_fingerprint,
    require_same_encoder,
)
from videogen.data.video import read_frames
from videogen.errors import UserError
from videogen.stages import apply_overrides
from videogen.training.buckets import sort_into_buckets


def altered(table: str, target: Path, **changes) -> str:
    """Copy a table with other values in its manifest."""
    shutil.copytree(table, target)
    manifest = json.loads((target / "manifest.json").read_text())
    (target / "manifest.json").write_text(json.dumps(manifest | changes))
    return str(target)


def test_rows_have_the_documented_fields(latents_table, tiny):
    table = LatentsTable.open(latents_table)
    assert len(table) == 6
    assert table.has_captions
    fields = ("latents_8", "latents_16", "prompt_embeds", "caption", "fps", "frame_indices", "frames", "clip_id")
    for index in range(len(table)):
        row = table.row(index, fields)
        assert tuple(row) == fields
        assert row["latents_8"].shape == (15, 4, 8, 8)
        assert row["latents_16"].shape == (15, 4, 16, 16)
        assert row["latents_16"].dtype == row["prompt_embeds"].dtype == np.float16
        assert not row["latents_16"].flags.writeable  # readers share what is cached
        assert row["prompt_embeds"].shape == (tiny.text.max_length, tiny.text.model.hidden_size)
        assert row["caption"].startswith("a ")
        assert row["fps"] == 16.0
        assert row["frames"].shape == (15, 64, 64, 3)
    source = table.row(0, ("source",))["source"]
    assert np.array_equal(table.row(0, ("frames",))["frames"], read_frames(source, range(15), 64))


def test_rows_are_in_the_order_of_the_corpus(latents_table):
    table = LatentsTable.open(latents_table)
    sources = [table.row(index, ("source",))["source"] for index in range(len(table))]
    assert sources == sorted(sources)


def test_any_parquet_reader_opens_a_shard(latents_table):
    (shard,) = Path(latents_table, "shards").glob("*.parquet")
    frame = pd.read_parquet(shard)
    first = frame.iloc[0]
    values = np.frombuffer(first["latents_16"], np.float16).reshape(first["latents_16_shape"])
    row = LatentsTable.open(latents_table).row(0, ("latents_16",))
    assert np.array_equal(values, row["latents_16"])


def test_rows_are_of_the_rate_of_their_clips(latents_table, tmp_path):
    """Whole steps through a film of 24 frames a second give 12, where 16 are aimed at: another bucket."""
    shutil.copytree(latents_table, tmp_path / "table")
    (index,) = (tmp_path / "table" / "index").glob("*.parquet")
    rows = pq.read_table(index)
    fps = pa.array([12.0, 16.0, 15.0, 12.5, 30.0, 16.0], rows.schema.field("fps").type)
    pq.write_table(rows.set_column(rows.schema.get_field_index("fps"), "fps", fps), index)
    shapes = LatentsTable.open(str(tmp_path / "table")).shapes()
    assert shapes.fps.tolist() == fps.to_pylist()
    buckets, labels = sort_into_buckets(shapes)
    assert [round(bucket.fps, 1) for bucket in buckets] == [11.3, 16.0, 32.0]
    assert labels.tolist() == [0, 1, 1, 0, 2, 1]


def test_equal_rows_have_one_fingerprint_however_long_they_took(latents_table, tmp_path):
    table = LatentsTable.open(latents_table)
    slower = altered(latents_table, tmp_path / "slower", facts={"decode_s": 1e6}, decoders={"pyav": "99"})
    assert LatentsTable.open(slower).fingerprint == table.fingerprint
    other = altered(latents_table, tmp_path / "other", identity="another")
    assert LatentsTable.open(other).fingerprint != table.fingerprint


@pytest.mark.parametrize("key", ["counts", "shards", "clip", "latent_sizes"])
def test_a_manifest_that_lacks_something_is_refused_in_one_sentence(latents_table, tmp_path, key):
    with pytest.raises(UserError, match=f"is damaged.*{key}"):
        LatentsTable.open(altered(latents_table, tmp_path / "table", **{key: None}))


def test_a_table_travels_to_other_processes(latents_table):
    table = LatentsTable.open(latents_table)
    expected = table.row(2, ("latents_8",))["latents_8"]
    copy = pickle.loads(pickle.dumps(table))
    assert copy.fingerprint == table.fingerprint
    assert np.array_equal(copy.row(2, ("latents_8",))["latents_8"], expected)


def test_wrong_rows_and_fields_are_refused(latents_table):
    table = LatentsTable.open(latents_table)
    with pytest.raises(IndexError):
        table.row(6, ("caption",))
    with pytest.raises(KeyError, match="latents_32"):
        table.row(0, ("latents_32",))


def test_an_unfinished_table_is_refused(latents_table, tmp_path):
    unfinished = tmp_path / "unfinished"
    shutil.copytree(latents_table, unfinished)
    (unfinished / "manifest.json").unlink()
    for opening in (LatentsTable.open, discover_tables):
        with pytest.raises(UserError, match=r"holds no manifest\.json"):
            opening(str(unfinished))
    with pytest.raises(UserError, match="does not exist"):
        LatentsTable.open(str(tmp_path / "missing"))


def test_tables_of_other_schemas_or_without_rows_are_refused(latents_table, tmp_path):
    with pytest.raises(UserError, match="schema version 99"):
        LatentsTable.open(altered(latents_table, tmp_path / "newer", schema_version=99))
    none = {"planned": 1, "ok": 0, "filtered": 0, "failed": 1, "rows": 0}
    with pytest.raises(UserError, match="holds no clip"):
        LatentsTable.open(altered(latents_table, tmp_path / "none", counts=none, shards=[]))


def test_tables_are_discovered_one_level_below(latents_table, tmp_path):
    for name in ("b", "a"):
        shutil.copytree(latents_table, tmp_path / "tables" / name)
    (tmp_path / "tables" / "notes").mkdir()
    assert [Path(table.uri).name for table in discover_tables(str(tmp_path / "tables"))] == ["a", "b"]
    assert len(discover_tables(latents_table)) == 1


def test_latents_of_two_encoders_never_mix(latents_table, tmp_path):
    shutil.copytree(latents_table, tmp_path / "tables" / "a")
    altered(latents_table, tmp_path / "tables" / "b", encoder_fingerprint="another")
    with pytest.raises(UserError, match="another encoder"):
        discover_tables(str(tmp_path / "tables"))
    with pytest.raises(UserError, match="another encoder"):
        require_same_encoder(LatentsTable.open(latents_table), "another", "the model")


def test_latents_for_another_cascade_are_refused(latents_table, tiny):
    table = LatentsTable.open(latents_table)
    table.require_matches(tiny)
    with pytest.raises(UserError, match=r"sizes \[8, 16\].* needs 32"):
        table.require_matches(apply_overrides(tiny, ["upsample.0.latent_size=32"]))
    with pytest.raises(UserError, match=r"num_frames 15.* needs 13"):
        table.require_matches(apply_overrides(tiny, ["num_frames=7"]))


def test_the_encoder_fingerprint_is_of_content(tiny_model, tmp_path):
    original = encoder_fingerprint(f"{tiny_model}/autoencoder")
    copy = tmp_path / "copy"
    shutil.copytree(f"{tiny_model}/autoencoder", copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"_name_or_path": "elsewhere"}))
    assert encoder_fingerprint(str(copy)) == original
    (weights,) = copy.glob("*.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert encoder_fingerprint(str(copy)) != original
    weights.unlink()
    with pytest.raises(UserError, match=r"no config\.json or no \.safetensors"):
        encoder_fingerprint(str(copy))
