"""Damaged videos cost only their own rows, and killed runs end with the table of an undisturbed run."""

import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from pipelines.encode.pipeline import encode
from pipelines.encode.plan import EncodeOptions
from pipelines.runner.run import RunOptions
from tests.chaos import _damaged_corpus as damaged_corpus
from tests.chaos._encode_job import command
from tests.chaos._killed_nodes import run_under_node_kills
from tests.chaos._killed_processes import ROOT, run_under_kills


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> damaged_corpus.Corpus:
    return damaged_corpus.build(tmp_path_factory.mktemp("chaos") / "corpus", num_files=120)


@pytest.fixture(scope="module")
def clean(corpus, ray_cluster, tiny, tiny_model, tmp_path_factory) -> Path:
    """Return the table of the good files alone."""
    table = tmp_path_factory.mktemp("chaos") / "clean"
    encode(str(corpus.good), str(table), tiny, tiny_model)
    return table


def test_damaged_videos_cost_their_own_rows(corpus, clean, tiny, tiny_model, tmp_path, figures):
    options = EncodeOptions(run=RunOptions(max_failure_rate=1.0, limit_s=5.0))
    result = encode(str(corpus.everything), str(tmp_path / "table"), tiny, tiny_model, options=options)
    counts = damaged_corpus.check(corpus, tmp_path / "table", clean)
    figures.update(files=corpus.num_files, good=corpus.num_good, **counts)
    assert counts["ok"] >= len(damaged_corpus.live_rows(clean)["source"].unique())
    assert result.planned == result.ok + result.filtered + result.failed
    again = encode(str(corpus.everything), str(tmp_path / "table"), tiny, tiny_model, options=options)
    assert again.encoded_now == 0


def test_a_run_whose_processes_are_killed_ends_with_the_same_table(corpus, clean, tiny_model, tmp_path, figures):
    table = tmp_path / "table"
    log = run_under_kills(command(corpus.good, table, tiny_model, 4, 8), kills=3, seed=1, most_s=2, notice_s=8)
    figures.update(kills=len(log.killed), runs=log.runs)
    assert log.killed == ["driver", "raylet", "worker"]
    whole, survived = damaged_corpus.live_rows(clean), damaged_corpus.live_rows(table)
    assert list(survived["clip_id"]) == list(whole["clip_id"])
    assert damaged_corpus.unequal(whole, survived) == []
    assert not list(table.rglob("*.partial"))
    assert log.orphans == []
    assert log.left_files == []


@pytest.mark.parametrize("gpus", [0, 1], ids=["one operator", "decoders beside encoders"])
def test_a_run_whose_nodes_die_ends_with_the_same_tables(gpus, corpus, clean, tiny_model, tmp_path, figures):
    table = tmp_path / "table"
    job = command(corpus.good, table, tiny_model, 2, 2, limit_s=60.0)
    log = run_under_node_kills(job, table, kills=4, seed=1, gpus=gpus)
    figures.update(kills=len(log.killed), runs=log.runs, lost_workers=log.lost_workers)
    assert log.killed == ["raylet in ingest", "node in ingest", "raylet in encode", "node in encode"]
    assert damaged_corpus.clip_rows(table).equals(damaged_corpus.clip_rows(clean))
    whole, survived = damaged_corpus.live_rows(clean), damaged_corpus.live_rows(table)
    assert list(survived["clip_id"]) == list(whole["clip_id"])
    assert damaged_corpus.unequal(whole, survived) == []
    for folder in (table, table / "clips"):
        assert not [path for name in ("parts", "plan") for path in folder.glob(f"{name}/*")]
    assert not list(table.rglob("*.partial"))


def test_a_large_damaged_corpus_is_encoded_under_kills(tiny_model, tmp_path, figures, pytestconfig):
    """Encode the good files undisturbed, then all files under kills. `--files` and `--kills` set the size."""
    num_files, kills = pytestconfig.getoption("files"), pytestconfig.getoption("kills")
    corpus = damaged_corpus.build(tmp_path / "corpus", num_files)
    clean, table = tmp_path / "clean", tmp_path / "table"
    started = time.perf_counter()
    subprocess.run(command(corpus.good, clean, tiny_model), cwd=ROOT, check=True)
    figures["clean_s"] = round(time.perf_counter() - started)
    started = time.perf_counter()
    log = run_under_kills(command(corpus.everything, table, tiny_model), kills, seed=0, most_s=12)
    figures["killed_s"] = round(time.perf_counter() - started)
    counts = damaged_corpus.check(corpus, table, clean)
    figures.update(files=num_files, good=corpus.num_good, clips=len(damaged_corpus.live_rows(table)), **counts)
    figures.update(kills=len(log.killed), runs=log.runs)
    errors = pd.read_parquet(table / "errors.parquet")
    print(errors["error"].str.replace(r"[\d.]+", "N", regex=True).value_counts().head(40).to_string())
    assert log.orphans == []
    assert log.left_files == []
