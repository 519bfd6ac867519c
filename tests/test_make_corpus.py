"""The corpus job: the documented layout, and nothing held out that is also trained on."""

import io
import re
from pathlib import Path

import pandas as pd
import pytest

from pipelines.cluster.progress import Progress
from pipelines.train.demo_corpus import make_demonstration_corpus
from tests.conftest import load_job
from videogen import storage
from videogen.data.sources import open_corpus, open_source
from videogen.data.synthetic import CorpusSize, held_out_captions, parse_caption
from videogen.errors import UserError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    load_job("make_corpus").main(["--output", str(folder), "--clips", "8"])
    return folder


def test_the_layout_is_the_documented_one(corpus):
    assert {path.name for path in corpus.iterdir()} == {"captioned", "unlabeled", "held_out"}
    assert {path.name for path in (corpus / "held_out").iterdir()} == {"captioned", "unlabeled", "prompts.parquet"}
    for folder, number in (("captioned", 8), ("held_out/captioned", 54)):
        videos = list(open_corpus(str(corpus / folder)).videos())
        assert len(videos) == number
        assert all(video.caption for video in videos)


def test_what_is_held_out_is_not_trained_on(corpus):
    train = pd.read_parquet(corpus / "captioned" / "captions.parquet")["caption"]
    held_out = pd.read_parquet(corpus / "held_out" / "captioned" / "captions.parquet")["caption"]
    assert not any(parse_caption(caption).held_out for caption in train)
    assert set(held_out) == set(held_out_captions())
    camera = {path.name for path in (corpus / "unlabeled").iterdir()}
    assert camera == {"bikes.mp4", "carphone_distorted.mp4", "carphone_pristine.mp4"}
    assert {path.name for path in (corpus / "held_out" / "unlabeled").iterdir()} == {"bigbuckbunny.mp4"}


def test_the_prompts_are_sixty_with_their_own_seeds(corpus):
    prompts = pd.read_parquet(corpus / "held_out" / "prompts.parquet")
    assert list(prompts.columns) == ["id", "prompt", "seed"]
    assert len(prompts) == prompts["id"].nunique() == 60
    assert set(prompts["prompt"]) == set(held_out_captions())
    assert not prompts.duplicated(["prompt", "seed"]).any()


def test_making_it_again_changes_nothing_and_replaces_a_lost_video(corpus):
    lost = corpus / "captioned" / "00003.mp4"
    content = lost.read_bytes()
    lost.unlink()
    before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*.*")}
    load_job("make_corpus").main(["--output", str(corpus), "--clips", "8"])
    assert lost.read_bytes() == content
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_corpus_in_a_bucket(s3, tiny):
    from videogen.data.synthetic import make_corpus

    make_corpus(f"{s3}/data", tiny, CorpusSize(captioned=2, held_out=1, prompts=3))
    assert len(storage.list_files(f"{s3}/data", [".mp4"])) == 2 + 1 + 4
    assert len(list(open_source(f"{s3}/data/unlabeled").videos())) == 3


def test_making_it_shows_how_many_videos_are_there(tiny, tmp_path):
    shown = io.StringIO()
    with Progress(shown, line_every_s=0.05) as progress:
        make_demonstration_corpus(str(tmp_path), tiny, progress, CorpusSize(captioned=40, held_out=1, prompts=1))
    lines = shown.getvalue().splitlines()
    assert any(re.match(r"corpora \d+/45 videos", line) for line in lines)
    assert lines[-1].startswith("corpora: 45 videos in ")


def test_no_clips_are_refused(tmp_path):
    with pytest.raises(UserError, match="--clips is 0"):
        load_job("make_corpus").main(["--output", str(tmp_path), "--clips", "0"])
