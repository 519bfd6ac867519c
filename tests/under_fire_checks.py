"""Poison and murder: damaged videos cost their own rows, and a killed run ends with the table of an undisturbed one."""

from pathlib import Path

import pytest

from pipelines.encode.pipeline import encode
from pipelines.encode.plan import EncodeOptions
from pipelines.runner.run import RunOptions
from tests import under_fire
from tests._dying_nodes import run_under_node_kills


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> under_fire.Corpus:
    return under_fire.build(tmp_path_factory.mktemp("fire") / "corpus", num_files=120)


@pytest.fixture(scope="module")
def clean(corpus, ray_cluster, tiny, tiny_model, tmp_path_factory) -> Path:
    table = tmp_path_factory.mktemp("fire") / "clean"
    encode(str(corpus.good), str(table), tiny, tiny_model)
    return table


def test_damaged_videos_cost_their_own_rows(corpus, clean, tiny, tiny_model, tmp_path):
    options = EncodeOptions(run=RunOptions(max_failure_rate=1.0, limit_s=5.0))
    result = encode(str(corpus.everything), str(tmp_path / "table"), tiny, tiny_model, options=options)
    counts = under_fire.check(corpus, tmp_path / "table", clean)
    assert counts["ok"] >= len(under_fire.live_rows(clean)["source"].unique())
    assert result.planned == result.ok + result.filtered + result.failed
    again = encode(str(corpus.everything), str(tmp_path / "table"), tiny, tiny_model, options=options)
    assert again.encoded_now == 0


def test_a_run_whose_processes_are_killed_ends_with_the_same_table(corpus, clean, tiny_model, tmp_path):
    table = tmp_path / "table"
    command = under_fire.encode_command(corpus.good, table, tiny_model, (4, 8))
    fire = under_fire.run_under_kills(command, kills=3, seed=1, most_s=2, notice_s=8)
    print(fire)
    assert fire.killed == ["driver", "raylet", "worker"]
    whole, survived = under_fire.live_rows(clean), under_fire.live_rows(table)
    assert list(survived["clip_id"]) == list(whole["clip_id"])
    assert under_fire.unequal(whole, survived) == []
    assert not list(table.rglob("*.partial"))
    assert fire.orphans == []
    assert fire.left == []


@pytest.mark.parametrize("gpus", [0, 1], ids=["one operator", "decoders beside encoders"])
def test_a_run_whose_nodes_die_ends_with_the_same_tables(gpus, corpus, clean, tiny_model, tmp_path):
    table = tmp_path / "table"
    command = under_fire.encode_command(corpus.good, table, tiny_model, (2, 2), limit_s=60.0)
    fire = run_under_node_kills(command, table, kills=4, seed=1, gpus=gpus)
    print(fire)
    assert fire.killed == ["raylet in ingest", "node in ingest", "raylet in encode", "node in encode"]
    assert under_fire.clip_rows(table).equals(under_fire.clip_rows(clean))
    whole, survived = under_fire.live_rows(clean), under_fire.live_rows(table)
    assert list(survived["clip_id"]) == list(whole["clip_id"])
    assert under_fire.unequal(whole, survived) == []
    for folder in (table, table / "clips"):
        assert not [path for name in ("parts", "plan") for path in folder.glob(f"{name}/*")]
    assert not list(table.rglob("*.partial"))
