"""Tables for others: what the real `webdataset` and `datasets` read, and what comes back when it is imported."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.cluster.progress import Task
from tests._interchange import export, read_tars, run_import
from tests._tables import clips_table, latents_table
from tests.conftest import load_job
from videogen import storage
from videogen.data.interchange import SourceVideo
from videogen.data.video import write_mp4
from videogen.errors import UserError

# webdataset leaves it to the garbage collector to close its files.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file.*tar:ResourceWarning")


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latents")
    sources = [str(folder / f"{number}.mp4") for number in range(7)]
    for number, source in enumerate(sources):
        Path(source).write_bytes(b"video %d" % number)
    return str(folder / "table"), latents_table(folder / "table", sources), sources


@pytest.fixture(scope="module")
def filmed(tmp_path_factory):
    """A clips table of local files, two clips of each, and the files; the last has none, the third no suffix."""
    folder = tmp_path_factory.mktemp("v1.0")
    sources = [str(folder / name) for name in ("0.mp4", "1.MP4", "2", "3.mp4")]
    for source in sources:
        Path(source).write_bytes(b"video %s" % source.encode())
    clips_table(folder / "table", sources, container="matroska")
    return str(folder / "table"), sources


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips") / "table"
    return str(folder), clips_table(folder, ["s3://b/0.mp4", "s3://b/1.mp4", "s3://b/2.mp4"], caption="a b\u00e4ll")


def test_webdataset_reads_latents_back_bit_by_bit(latents, tmp_path):
    table, told, _ = latents
    files = export(table, tmp_path, "webdataset", "--shard-mb", 0.06)
    assert files == [".videogen-export.json", *[f"{number:05}.tar" for number in range(len(files) - 2)], "index.json"]
    assert len(files) > 4
    samples = read_tars(tmp_path)
    assert [sample["__key__"] for sample in samples] == [row["clip_id"] for row in told]
    for sample, row in zip(samples, told, strict=True):
        for name in ("latents_4", "latents_4_logvar", "latents_8", "latents_8_logvar", "prompt_embeds"):
            assert sample[f"{name}.npy"].dtype == np.float16
            assert np.array_equal(sample[f"{name}.npy"], row[name])
        assert sample["txt"] == row["caption"]
        assert sample["json"]["frame_indices"] == list(range(15))
        assert sample["json"]["caption"] == row["caption"]
        assert not {"shard", "row", "latents_4", "latents_4_shape", "latents_4_dtype"} & set(sample["json"])
    index = json.loads((tmp_path / "index.json").read_text())["shardlist"]
    assert sum(shard["nsamples"] for shard in index) == len(told)
    for shard in index:
        assert shard["filesize"] == (tmp_path / shard["url"]).stat().st_size <= 0.06 * 2**20 + 10240


def test_the_same_table_gives_the_same_tars(latents, tmp_path):
    first = {name: (tmp_path / name).read_bytes() for name in export(latents[0], tmp_path, "webdataset")}
    second = {name: (tmp_path / name).read_bytes() for name in export(latents[0], tmp_path, "webdataset")}
    assert first == second


def test_arrays_travel_as_safetensors(latents, tmp_path):
    from safetensors.numpy import load

    table, told, _ = latents
    options = ["--arrays", "safetensors", "--where", "clip_id >= 'clip05'"]
    export(table, tmp_path, "webdataset", *options)
    samples = read_tars(tmp_path)
    assert [sample["__key__"] for sample in samples] == ["clip05", "clip06"]
    for sample, row in zip(samples, told[5:], strict=True):
        arrays = load(sample["safetensors"])
        assert set(arrays) == {name for name, value in row.items() if isinstance(value, np.ndarray)}
        assert all(np.array_equal(array, row[name]) for name, array in arrays.items())


@pytest.mark.parametrize(
    "options", [["webdataset", "--with-videos"], ["huggingface", "--with-videos"], ["huggingface"]]
)
def test_what_was_exported_can_be_imported(filmed, tmp_path, options):
    table, sources = filmed
    export(table, tmp_path / "hub", *options)
    rows, errors = run_import(tmp_path / "hub", tmp_path / "out")
    found = {Path(row["uri"]).read_bytes(): row["caption"] for row in rows}
    captions = ["a ball 0", None, "a ball 2"]
    assert found == {Path(source).read_bytes(): caption for source, caption in zip(sources, captions, strict=False)}
    # Each video once, although two clips come from each.
    assert len(rows) == 3
    assert pq.read_metadata(tmp_path / "out" / "videos.parquet").num_rows == 3
    assert errors == {}


def test_a_local_file_that_an_export_names_must_still_be_that_file(filmed, tmp_path):
    table, _ = filmed
    export(table, tmp_path / "hub", "huggingface")
    (part,) = (tmp_path / "hub" / "data").iterdir()
    rows = pq.read_table(part)
    stolen = rows.set_column(rows.schema.get_field_index("video_version"), "video_version", [["1-1.0"] * len(rows)])
    pq.write_table(stolen.slice(1), part)
    with pytest.raises(UserError, match=r"no video to import \(row 0: its path '.*' was replaced since"):
        run_import(tmp_path / "hub", tmp_path / "out")


def test_videos_go_along_once_and_are_named_by_what_is_in_them(filmed, tmp_path):
    table, sources = filmed
    export(table, tmp_path / "tars", "webdataset", "--with-videos")
    clips, videos = read_tars(tmp_path / "tars"), read_tars(tmp_path / "tars" / "videos")
    assert [sample["json"]["source"] for sample in videos] == sources[:3]
    by_key = {sample["__key__"]: sample["json"]["source"] for sample in videos}
    assert [by_key[clip["json"]["video_key"]] for clip in clips] == [clip["json"]["source"] for clip in clips]
    # The third has no suffix, but its container was probed.
    suffixes = [set(sample) - {"json", "txt", "__key__", "__url__", "__local_path__"} for sample in videos]
    assert suffixes == [{"mp4"}, {"mp4"}, {"mkv"}]


@pytest.mark.process
def test_without_a_suffix_or_a_container_in_the_table_the_file_itself_is_probed(tmp_path):
    source = tmp_path / "v1.0" / "clip"
    source.parent.mkdir()
    source.write_bytes(write_mp4(np.zeros((2, 16, 16, 3), np.uint8), 8.0))
    assert SourceVideo(str(source), "", None, None).file_name().endswith(".mp4")
    source.write_bytes(b"no video")
    with pytest.raises(UserError, match=r"cannot be exported.*without --with-videos"):
        SourceVideo(str(source), "", None, None).file_name()


def test_arrays_have_one_form_in_parquet(latents, tmp_path):
    with pytest.raises(UserError, match="--arrays npy is for --format webdataset"):
        export(latents[0], tmp_path / "out", "huggingface", "--arrays", "npy")


def test_a_source_that_was_replaced_stops_an_export_before_it_begins(tmp_path):
    source = tmp_path / "0.mp4"
    source.write_bytes(b"one")
    latents_table(tmp_path / "table", [str(source)])
    source.write_bytes(b"another")
    for form in ("webdataset", "huggingface"):
        with pytest.raises(UserError, match=r"0\.mp4' cannot be exported \(it was replaced"):
            export(tmp_path / "table", tmp_path / form, form, "--with-videos")
        assert not (tmp_path / form).exists()


@pytest.mark.parametrize("form", ["webdataset", "huggingface"])
def test_clips_that_the_policy_has_dropped_are_left_out_unless_asked_for(clips, tmp_path, form):
    table, rows = clips

    def exported(folder, *options):
        export(table, folder, form, *options)
        if form == "webdataset":
            return {sample["__key__"]: sample["json"] for sample in read_tars(folder)}
        return {row["clip_id"]: row for path in folder.glob("data/*") for row in pq.read_table(path).to_pylist()}

    kept = exported(tmp_path / "kept")
    assert list(kept) == [row["clip_id"] for row in (rows[0], *rows[2:])]
    assert list(exported(tmp_path / "all", "--with-dropped")) == [row["clip_id"] for row in rows]
    assert kept[rows[0]["clip_id"]]["caption"] == "a b\u00e4ll 0"
    assert kept[rows[2]["clip_id"]]["caption"] is None


def test_thumbnails_of_clips_are_pictures_in_a_sample(clips, tmp_path):
    table, rows = clips
    export(table, tmp_path, "webdataset")
    import webdataset

    sample = next(iter(webdataset.WebDataset([str(tmp_path / "00000.tar")], shardshuffle=False)))
    assert sample["thumbnail.jpg"] == rows[0]["thumbnail"]
    assert "mp4" not in sample


def load_with_datasets(folder, cache, name=None):
    import datasets

    return datasets.load_dataset(str(folder), name, split="train", cache_dir=str(cache))


def test_the_datasets_library_reads_latents_back_bit_by_bit(latents, tmp_path):
    table, told, _ = latents
    files = export(table, tmp_path / "hub", "huggingface", "--shard-mb", 0.06)
    count = len(files) - 2
    assert count > 2
    assert files == [
        ".videogen-export.json",
        "README.md",
        *[f"data/train-{number:05}-of-{count:05}.parquet" for number in range(count)],
    ]
    loaded = load_with_datasets(tmp_path / "hub", tmp_path / "cache")
    assert loaded.num_rows == len(told)
    for row, expected in zip(loaded.with_format("numpy"), told, strict=True):
        assert row["clip_id"] == expected["clip_id"]
        for name in ("latents_4", "latents_8_logvar", "prompt_embeds"):
            # The library's numpy format widens half floats, which loses nothing.
            assert loaded.features[name].feature.dtype == "float16"
            assert np.array_equal(row[name].reshape(row[f"{name}_shape"]), expected[name])


def test_the_datasets_library_reads_clips_with_their_pictures(clips, tmp_path):
    table, rows = clips
    export(table, tmp_path / "hub", "huggingface")
    loaded = load_with_datasets(tmp_path / "hub", tmp_path / "cache")
    assert loaded[0]["thumbnail"].size == (384, 128)
    assert loaded[0]["video"] == rows[0]["source"]
    assert loaded[0]["motion"] == pytest.approx(0.1)
    card = (tmp_path / "hub" / "README.md").read_text()
    assert card.startswith("---\n")
    assert "num_examples: 3" in card


def test_the_datasets_library_reads_videos_that_are_inside(latents, tmp_path):
    import datasets

    table, _, sources = latents
    export(table, tmp_path / "hub", "huggingface", "--with-videos")
    clips = load_with_datasets(tmp_path / "hub", tmp_path / "cache")
    assert clips.num_rows == len(sources)
    loaded = load_with_datasets(tmp_path / "hub", tmp_path / "cache", "videos")
    assert loaded.features["video"] == datasets.Video()
    videos = loaded.cast_column("video", datasets.Video(decode=False))
    names = [f"{key}.mp4" for key in clips["video_key"]]
    expected = [{"bytes": Path(s).read_bytes(), "path": name} for s, name in zip(sources, names, strict=True)]
    assert list(videos["video"]) == expected


@pytest.mark.parametrize("form", ["webdataset", "huggingface"])
def test_an_export_replaces_an_earlier_one_and_nothing_else(latents, tmp_path, form):
    first = export(latents[0], tmp_path / "out", form, "--shard-mb", 0.06)
    second = export(latents[0], tmp_path / "out", form)
    assert len(second) < len(first)
    # A writer that was killed leaves the beginning of a file that the record names.
    (tmp_path / "out" / f"..videogen-export.json.{'0' * 32}.partial").write_bytes(b"x")
    assert export(latents[0], tmp_path / "out", form) == second
    for mine in ("mine.txt", "mine.tar", "data/mine.parquet"):
        (tmp_path / "out" / mine).parent.mkdir(exist_ok=True)
        (tmp_path / "out" / mine).write_text("kept")
        with pytest.raises(UserError, match=rf"{mine}', which no export wrote"):
            export(latents[0], tmp_path / "out", form)
        assert (tmp_path / "out" / mine).read_text() == "kept"
        (tmp_path / "out" / mine).unlink()
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "00000.tar").write_bytes(b"x")
    with pytest.raises(UserError, match=r"00000\.tar.*give an empty folder"):
        export(latents[0], tmp_path / "theirs", form)
    assert (tmp_path / "theirs" / "00000.tar").read_bytes() == b"x"


@pytest.mark.parametrize("form", ["webdataset", "huggingface"])
def test_an_export_that_broke_off_is_replaced_by_the_next(latents, tmp_path, monkeypatch, form):
    class KilledError(BaseException):
        pass

    def die(*_):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Task, "advance", die)
        with pytest.raises(KilledError):
            export(latents[0], tmp_path, form, "--shard-mb", 0.06)
    assert list(tmp_path.iterdir())
    export(latents[0], tmp_path, form)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 3


@pytest.mark.parametrize("form", ["webdataset", "huggingface"])
def test_exports_go_to_a_bucket(latents, s3, tmp_path, form):
    load_job("export_table").main(["--table", latents[0], "--output", f"{s3}/{form}", "--format", form])
    local = export(latents[0], tmp_path, form)
    for name in local:
        assert storage.read_bytes(f"{s3}/{form}/{name}") == (tmp_path / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--where", "clip_id = 'none'"], "no row to export for which"),
        (["--where", "capton = ''"], "caption"),
        (["--shard-mb", "0"], "--shard-mb is 0"),
        (["--shard-mb", "nan"], "--shard-mb is nan"),
        (["--where", "true) or (true"], "--where"),
    ],
)
@pytest.mark.parametrize("form", ["webdataset", "huggingface"])
def test_an_export_that_cannot_be_is_refused_and_leaves_no_trace(latents, tmp_path, form, options, words):
    with pytest.raises(UserError, match=words):
        export(latents[0], tmp_path / "out", form, *options)
    assert not (tmp_path / "out").exists()
