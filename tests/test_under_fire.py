"""Poison and murder: damaged videos cost their own rows, and a killed run ends with the table of an undisturbed one."""

import random
from pathlib import Path

import pytest

from pipelines.encode import EncodeOptions, encode
from pipelines.ledgered import RunOptions
from tests import under_fire


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> under_fire.Corpus:
    return under_fire.build(tmp_path_factory.mktemp("fire") / "corpus", num_files=150)


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


def test_a_run_that_is_killed_at_random_loses_nothing(corpus, clean, tiny_model, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    table = tmp_path / "table"
    command = under_fire.encode_command(corpus.good, table, tiny_model)
    runs, killed = under_fire.run_under_kills(command, kills=3, rng=random.Random(1), most_s=12)
    assert runs >= 1
    assert len(killed) <= 3
    whole, survived = under_fire.live_rows(clean), under_fire.live_rows(table)
    assert list(survived["frame_indices"].map(tuple)) == list(whole["frame_indices"].map(tuple))
    for name in ("latents_8", "latents_16"):
        assert all((one == other).all() for one, other in zip(survived[name], whole[name], strict=True))
    assert not _orphans()


def _orphans() -> list[int]:
    """Return decoders that live on although nobody is left to ask them."""
    import psutil

    found = psutil.process_iter(["cmdline", "ppid", "pid"])
    decoders = [one.info for one in found if "videogen.data._decoder_child" in (one.info["cmdline"] or [])]
    return [info["pid"] for info in decoders if info["ppid"] == 1]
