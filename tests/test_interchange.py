"""Data sets of others: what the real `webdataset` and `datasets` read, and imports that a bad shard cannot harm."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests._tables import clips_table, latents_table
from tests.conftest import load_job
from videogen import storage
from videogen.data.interchange.unpacking import safe_name
from videogen.data.interchange.webdataset import split_name
from videogen.data.sources import open_source
from videogen.errors import UserError

# webdataset leaves it to the garbage collector to close its files.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file.*tar:ResourceWarning")


def run_import(source, output, *options):
    """Run the job; return videos with captions by the end of their path, and errors by member."""
    load_job("import_videos").main(["--input", str(source), "--output", str(output), *map(str, options)])
    source = open_source(storage.join(str(output), "videos.parquet"))
    rows = pa.Table.from_batches(source.batches()).to_pylist()
    filesystem, path = storage.arrow_filesystem(storage.join(str(output), "errors.parquet"))
    errors = pq.read_table(path, filesystem=filesystem).to_pylist()
    return rows, {error["member"]: error["error"] for error in errors}


def write_tar(path, files, mode="w"):
    """Write a tar; values are contents, or a TarInfo for what is no file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, content in files:
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


# --- import of WebDataset ----------------------------------------------------------------------------------------


def test_samples_become_videos_with_their_captions(tmp_path):
    write_tar(
        tmp_path / "in" / "00000.tar",
        [
            ("a/000.mp4", b"one"),
            ("a/000.txt", b" a\n ball "),
            ("a/001.json", b'{"caption": "from json", "url": "x"}'),
            ("a/001.left.MP4", b"two"),
            ("a/001.right.mp4", b"three"),
            ("a/002.webm", b"four"),
            ("a/002.npy", b"ignored"),
        ],
    )
    write_tar(tmp_path / "in" / "00001.tar.gz", [("a/000.mp4", b"five"), ("a/000.json", b'{"text": "other"}')], "w:gz")
    rows, errors = run_import(tmp_path / "in", tmp_path / "out")
    found = {Path(row["uri"]).read_bytes(): row["caption"] for row in rows}
    assert found == {b"one": "a ball", b"two": "from json", b"three": "from json", b"four": None, b"five": "other"}
    assert all(row["uri"].startswith(f"{tmp_path}/out/videos/") and row["version"] for row in rows)
    assert errors == {}


def test_a_caption_can_be_named(tmp_path):
    sample = [("0.mp4", b"x"), ("0.txt", b"short"), ("0.json", b'{"long": "a long one"}')]
    (row,), _ = run_import(write_tar(tmp_path / "in" / "0.tar", sample), tmp_path / "out", "--caption", "long")
    assert row["caption"] == "a long one"


def test_a_shard_decides_neither_where_nor_how_much_is_written(tmp_path):
    link = tarfile.TarInfo("link.mp4")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    device = tarfile.TarInfo("device.mp4")
    device.type = tarfile.CHRTYPE
    shard = write_tar(
        tmp_path / "in" / "0.tar",
        [
            ("../../escaped.mp4", b"up"),
            ("/absolute.mp4", b"root"),
            (f"{'long' * 24}/{'name' * 24}.mp4", b"long"),
            (".hidden.mp4", b"hidden"),
            ("link.mp4", link),
            ("device.mp4", device),
            ("large.mp4", bytes(2000)),
            ("twice.mp4", b"first"),
            ("twice.mp4", b"second"),
            ("bad.mp4", b"good video"),
            ("bad.json", b"{"),
            ("latin.mp4", b"latin"),
            ("latin.txt", b"\xff"),
        ],
    )
    rows, errors = run_import(shard, tmp_path / "out", "--max-bytes", 1000)
    found = {Path(row["uri"]).read_bytes() for row in rows}
    assert found == {b"up", b"root", b"long", b"hidden", b"first", b"good video", b"latin"}
    assert {name.rpartition("/")[2] for name in errors} == {
        "link.mp4", "device.mp4", "large.mp4", "twice.mp4", "bad.json", "latin.txt"
    }  # fmt: skip
    assert "2000 bytes" in errors["large.mp4"]
    written = [path for path in tmp_path.rglob("*.mp4") if path.is_file()]
    assert all(path.is_relative_to(tmp_path / "out" / "videos") and not path.is_symlink() for path in written)
    assert not (tmp_path.parent / "escaped.mp4").exists()


def test_a_shard_with_an_endless_header_is_left_off_there(tmp_path):
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 40 << 30
    with tarfile.open(tmp_path / "first.tar", "w") as tar:
        member = tarfile.TarInfo("0.mp4")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"one"))
    # 40 GB are announced; whoever believes it runs out of memory.
    content = (tmp_path / "first.tar").read_bytes()[:1024] + header.tobuf(tarfile.GNU_FORMAT) + bytes(5000)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.tar").write_bytes(content)
    rows, errors = run_import(tmp_path / "in", tmp_path / "out")
    assert [Path(row["uri"]).read_bytes() for row in rows] == [b"one"]
    assert "header" in next(iter(errors.values()))


def test_what_comes_before_damage_is_imported_and_the_damage_is_told(tmp_path):
    whole = write_tar(tmp_path / "whole.tar", [(f"{index}.mp4", bytes([index]) * 5000) for index in range(4)])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "cut.tar").write_bytes(whole.read_bytes()[:13000])
    rows, errors = run_import(tmp_path / "in", tmp_path / "out")
    assert [Path(row["uri"]).read_bytes()[:1] for row in rows] == [b"\0", b"\1"]
    assert list(errors) != []


def test_a_second_run_leaves_what_is_done_and_takes_in_what_is_new(tmp_path):
    write_tar(tmp_path / "in" / "0.tar", [("0.mp4", b"x"), ("0.txt", b"one")])
    first, _ = run_import(tmp_path / "in", tmp_path / "out")
    write_tar(tmp_path / "in" / "1.tar", [("0.mp4", b"y")])
    second, _ = run_import(tmp_path / "in", tmp_path / "out")
    assert len(second) == 2
    # The video of the first run was not written again, or it would count as another one.
    assert first[0] in second


def test_tars_in_a_bucket_are_imported_into_a_bucket(s3, tmp_path):
    storage.upload(write_tar(tmp_path / "0.tar", [("0.mp4", b"x"), ("0.txt", b"one")]), f"{s3}/in/0.tar")
    (row,), _ = run_import(f"{s3}/in", f"{s3}/out")
    assert (storage.read_bytes(row["uri"]), row["caption"]) == (b"x", "one")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a.txt": b"x"}, "holds no shard"),
        ({"a.tar": b"no tar"}, "no video to import.*cannot be read"),
        ({"a.tar": b"", "b.parquet": b""}, "both tar and parquet"),
        ({"a.parquet": b"no parquet"}, "no parquet file"),
    ],
)
def test_an_input_without_any_video_is_refused(tmp_path, files, words):
    (tmp_path / "in").mkdir()
    for name, content in files.items():
        (tmp_path / "in" / name).write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        run_import(tmp_path / "in", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "videos.parquet").exists()


def test_an_output_among_the_shards_is_refused(tmp_path):
    write_tar(tmp_path / "in" / "0.tar", [("0.mp4", b"x")])
    with pytest.raises(UserError, match="in the folder of the shards"):
        run_import(tmp_path / "in", tmp_path / "in" / "out")


def test_names_of_members_are_made_safe_and_stay_different():
    names = [
        "a.mp4",
        "../a.mp4",
        "/a.mp4",
        "a/b.mp4",
        "a__b.mp4",
        "..",
        ".a.mp4",
        "a\0b.mp4",
        "x" * 300 + ".mp4",
        "\u00e9.mp4",
    ]
    safe = [safe_name(name) for name in names]
    assert safe[0] == "a.mp4"
    assert len(set(safe)) == len(names)
    for name in safe:
        assert not set("/\0") & set(name)
        assert not name.startswith(".")
        assert len(name.encode()) < 256


def test_samples_are_named_up_to_the_first_dot():
    assert split_name("a.b/c.d.mp4") == ("a.b/c", "d.mp4")
    assert split_name("c") == ("c", "")


# --- import of Hugging Face parquet ------------------------------------------------------------------------------


def test_videos_inside_parquet_are_unpacked(tmp_path):
    videos = [
        {"bytes": b"one", "path": "../../x.mp4"},
        {"bytes": b"two", "path": None},
        {"bytes": bytes(99), "path": "l.mp4"},
    ]
    (tmp_path / "in" / "data").mkdir(parents=True)
    frame = pd.DataFrame({"video": videos, "text": ["first", " ", "x"], "label": [1, 2, 3]})
    frame.to_parquet(tmp_path / "in" / "data" / "train-00000-of-00001.parquet")
    rows, errors = run_import(tmp_path / "in", tmp_path / "out", "--max-bytes", 50)
    assert {Path(row["uri"]).read_bytes(): row["caption"] for row in rows} == {b"one": "first", b"two": None}
    assert all(row["uri"].startswith(f"{tmp_path}/out/videos/") for row in rows)
    assert list(errors) == ["row 2"]


def test_videos_that_parquet_names_stay_where_they_are(tmp_path, s3):
    names = ["clips/a.mp4", "../outside.mp4", "/etc/passwd", "https://host/a.mp4", f"{s3}/b.mp4", None]
    (tmp_path / "in").mkdir()
    pd.DataFrame({"file": names}).to_parquet(tmp_path / "in" / "0.parquet")
    rows, errors = run_import(tmp_path / "in", tmp_path / "out", "--video", "file")
    assert {row["uri"] for row in rows} == {f"{tmp_path}/in/clips/a.mp4", f"{s3}/b.mp4"}
    assert list(errors) == ["row 1", "row 2", "row 3", "row 5"]
    with pytest.raises(UserError, match=r"no column 'fle', only file.*Did you mean 'file'"):
        run_import(tmp_path / "in", tmp_path / "out", "--video", "fle")


def test_what_the_datasets_library_writes_is_imported(tmp_path):
    import datasets

    features = datasets.Features({"video": datasets.Video(decode=False), "caption": datasets.Value("string")})
    rows = {"video": [{"bytes": b"abc", "path": "a.mp4"}], "caption": ["a cat"]}
    (tmp_path / "in").mkdir()
    datasets.Dataset.from_dict(rows, features).to_parquet(str(tmp_path / "in" / "train.parquet"))
    (row,), _ = run_import(tmp_path / "in", tmp_path / "out")
    assert (Path(row["uri"]).read_bytes(), row["caption"]) == (b"abc", "a cat")


# --- export ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latents")
    sources = [str(folder / f"{number}.mp4") for number in range(7)]
    for number, source in enumerate(sources):
        Path(source).write_bytes(b"video %d" % number)
    return str(folder / "table"), latents_table(folder / "table", sources), sources


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips") / "table"
    return str(folder), clips_table(folder, ["s3://b/0.mp4", "s3://b/1.mp4", "s3://b/2.mp4"], caption="a b\u00e4ll")


def export(table, output, form, *options):
    load_job("export_table").main(
        ["--table", str(table), "--output", str(output), "--format", form, *map(str, options)]
    )
    return sorted(str(path.relative_to(output)) for path in Path(output).rglob("*") if path.is_file())


def read_tars(folder):
    import webdataset

    tars = sorted(str(path) for path in Path(folder).glob("*.tar"))
    return list(webdataset.WebDataset(tars, shardshuffle=False).decode())


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


def test_arrays_travel_as_safetensors_and_videos_beside_them(latents, tmp_path):
    from safetensors.numpy import load

    table, told, sources = latents
    options = ["--arrays", "safetensors", "--with-videos", "--where", "clip_id >= 'clip05'"]
    export(table, tmp_path, "webdataset", *options)
    samples = read_tars(tmp_path)
    assert [sample["__key__"] for sample in samples] == ["clip05", "clip06"]
    for sample, row, source in zip(samples, told[5:], sources[5:], strict=True):
        arrays = load(sample["safetensors"])
        assert set(arrays) == {name for name, value in row.items() if isinstance(value, np.ndarray)}
        assert all(np.array_equal(array, row[name]) for name, array in arrays.items())
        assert sample["mp4"] == Path(source).read_bytes()


def test_what_was_exported_with_videos_can_be_imported(latents, tmp_path):
    table, told, sources = latents
    export(table, tmp_path / "tars", "webdataset", "--with-videos")
    rows, errors = run_import(tmp_path / "tars", tmp_path / "out")
    found = {Path(row["uri"]).read_bytes(): row["caption"] for row in rows}
    assert found == {Path(s).read_bytes(): row["caption"] for s, row in zip(sources, told, strict=True)}
    assert errors == {}
    export(table, tmp_path / "hub", "huggingface", "--with-videos")
    rows, errors = run_import(tmp_path / "hub" / "data", tmp_path / "out2")
    assert {Path(row["uri"]).read_bytes(): row["caption"] for row in rows} == found


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


def load_with_datasets(folder, cache):
    import datasets

    return datasets.load_dataset(str(folder), split="train", cache_dir=str(cache))


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
    loaded = load_with_datasets(tmp_path / "hub", tmp_path / "cache")
    assert loaded.features["video"] == datasets.Video()
    videos = loaded.cast_column("video", datasets.Video(decode=False))["video"]
    assert list(videos) == [{"bytes": Path(s).read_bytes(), "path": Path(s).name} for s in sources]


@pytest.mark.parametrize("form", ["webdataset", "huggingface"])
def test_an_export_replaces_an_earlier_one_and_nothing_else(latents, tmp_path, form):
    first = export(latents[0], tmp_path / "out", form, "--shard-mb", 0.06)
    second = export(latents[0], tmp_path / "out", form)
    assert len(second) < len(first)
    (tmp_path / "out" / "mine.txt").write_text("kept")
    with pytest.raises(UserError, match=r"mine\.txt"):
        export(latents[0], tmp_path / "out", form)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "00000.tar").write_bytes(b"x")
    with pytest.raises(UserError, match=r"00000\.tar.*give an empty folder"):
        export(latents[0], tmp_path / "theirs", form)
    assert (tmp_path / "theirs" / "00000.tar").read_bytes() == b"x"


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
