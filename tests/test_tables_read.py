"""Reader of published tables: kinds and versions are checked, rows are complete, damage is reported."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from tests._tables import clips_table, latents_table
from videogen import storage
from videogen.data.datasets import open_table
from videogen.data.datasets.clips_schema import CLIPS
from videogen.data.datasets.clips_table import ClipsTable
from videogen.data.datasets.latents_table import LatentsTable
from videogen.data.tables import PublishedTable, kind_of
from videogen.errors import UserError


@pytest.fixture
def tables(tmp_path) -> dict[str, str]:
    clips_table(tmp_path / "clips", ["a.mp4", "b.mp4", "c.mp4"])
    latents_table(tmp_path / "latents", [f"{n}.mp4" for n in range(5)])
    return {name: str(tmp_path / name) for name in ("clips", "latents")}


def test_a_table_of_any_kind_is_opened_and_one_of_another_kind_is_refused(tables):
    for name, uri in tables.items():
        assert open_table(uri).kind.name == kind_of(uri) == name
    with pytest.raises(UserError, match=r"holds a table of latents, but a table of clips is needed.*jobs/ingest\.py"):
        ClipsTable.open(tables["latents"])
    with pytest.raises(UserError, match=r"holds a table of clips, but a table of latents is .*jobs/encode_latents\.py"):
        LatentsTable.open(tables["clips"])
    assert kind_of(str(Path(tables["clips"], "shards"))) is None


def test_a_manifest_of_another_release_or_of_no_table_is_refused(tables):
    uri = storage.join(tables["clips"], "manifest.json")
    manifest = storage.read_json(uri)
    for changed, words in [
        (manifest | {"schema_version": 1}, "schema version 1, but this release reads 2"),
        (manifest | {"shards": [{"name": "x"}]}, r"damaged \(key 'shards\.0\.rows'"),
        (manifest | {"policy": None}, r"damaged \(key 'policy'"),
        ({"name": "of something else"}, "that is no table's"),
    ]:
        storage.write_json(uri, changed)
        with pytest.raises(UserError, match=words):
            open_table(tables["clips"], "Input")


def test_whole_rows_have_arrays_in_shape_and_the_columns_of_index_and_shard(tables):
    table = open_table(tables["latents"])
    rows = list(table.rows())
    assert [row["clip_id"] for row in rows] == [f"clip{n:02}" for n in range(5)]
    assert rows[0]["latents_8"].shape == (15, 4, 8, 8)
    assert rows[0]["latents_8"].dtype == np.float16
    assert not {"shard", "row", "latents_8_shape", "latents_8_dtype"} & set(rows[0])
    (one,) = table.rows_at([1], "clip_id > 'clip01'", exclude=("latents_8",))
    assert (one["clip_id"], "latents_8" in one) == ("clip03", False)
    assert table.count("clip_id > 'clip01'") == 3
    selected = LatentsTable.open(tables["latents"]).select("clip_id > 'clip01'")
    assert (len(selected), selected.count("clip_id < 'clip04'")) == (3, 2)
    trained = LatentsTable.open(tables["latents"])
    for number, row in enumerate(rows):
        assert np.array_equal(trained.row(number, ("latents_8",))["latents_8"], row["latents_8"])


def test_a_flipped_bit_in_a_shard_is_noticed_by_every_reader(tables):
    uri = tables["latents"]
    values = next(iter(open_table(uri).rows()))["latents_8"].tobytes()
    (shard,) = (path for path in Path(uri, "shards").iterdir() if values in path.read_bytes())
    content = bytearray(shard.read_bytes())
    content[content.index(values) + 100] ^= 1
    shard.write_bytes(content)
    for read in (lambda: list(open_table(uri).rows()), lambda: LatentsTable.open(uri).row(0, ("latents_8",))):
        with pytest.raises(UserError, match=f"{shard.name}' is damaged"):
            read()


def test_a_table_travels_to_other_processes_without_what_it_has_cached(tables):
    for uri in tables.values():
        table = open_table(uri)
        first = [row["clip_id"] for row in table.rows()]
        copy = pickle.loads(pickle.dumps(table))
        assert [row["clip_id"] for row in copy.rows()] == first
        assert copy.fingerprint == table.fingerprint


def test_the_fingerprint_covers_content_and_not_how_it_was_made(tables):
    table = open_table(tables["clips"])
    measured = {**table.manifest, "facts": {"analyse_s": 1e6}, "decoders": {"pyav": "99"}}
    assert PublishedTable(table.uri, measured, CLIPS).fingerprint == table.fingerprint
    other = {**table.manifest, "identity": "another"}
    assert PublishedTable(table.uri, other, CLIPS).fingerprint != table.fingerprint
