"""Data sets of others: imports that a bad shard cannot harm."""

import gzip
import io
import re
import resource
import subprocess
import sys
import tarfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests._interchange import run_import, write_tar
from videogen import storage
from videogen.errors import UserError

JOBS = Path(__file__).resolve().parent.parent / "jobs"

# --- WebDataset --------------------------------------------------------------------------------------------------


def test_samples_become_videos_with_their_captions(tmp_path):
    write_tar(
        tmp_path / "in" / "00000.tar",
        [
            ("a.b/000.mp4", b"one"),
            ("a.b/000.txt", b" a\n ball "),
            ("a.b/001.json", b'{"caption": "from json", "url": "x"}'),
            ("a.b/001.left.MP4", b"two"),
            ("a.b/001.right.mp4", b"three"),
            ("a.b/002.webm", b"four"),
            ("a.b/002.npy", b"ignored"),
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


def test_of_several_captions_the_first_is_taken_and_this_is_told(tmp_path, capsys):
    samples = [
        ("0.mp4", b"x"),
        ("0.json", b'{"text": [" ", "first", "second"]}'),
        ("1.mp4", b"y"),
        ("1.json", b'{"text": 5}'),
    ]
    rows, errors = run_import(write_tar(tmp_path / "in" / "0.tar", samples), tmp_path / "out")
    assert [row["caption"] for row in rows] == ["first", None]
    assert "neither text nor a list of texts" in errors["1.json"]
    assert "1 with the first of several captions" in capsys.readouterr().out


def test_a_caption_that_no_sample_has_is_refused_before_anything_is_written(tmp_path):
    write_tar(tmp_path / "in" / "0.tar", [("0.mp4", b"x"), ("0.json", b'{"caption": "a", "url": "b"}')])
    write_tar(tmp_path / "in" / "1.tar", [("0.mp4", b"x"), ("0.txt", b"a")])
    with pytest.raises(UserError, match=r"'capton', only caption, url: name one of these\. Did you mean 'caption'"):
        run_import(tmp_path / "in", tmp_path / "out", "--caption", "capton")
    with pytest.raises(UserError, match="leave --caption out"):
        run_import(tmp_path / "in" / "1.tar", tmp_path / "out", "--caption", "caption")
    assert not (tmp_path / "out").exists()


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


@pytest.mark.parametrize("size", [1000, 3072, 3000, 3072 + 512 + 70])
def test_what_comes_before_damage_is_imported_and_the_damage_is_told(tmp_path, size):
    """Cut in a video, between two members, in the padding, in a text."""
    files = [(f"{index}.{kind}", bytes([65 + index]) * 600) for index in range(3) for kind in ("mp4", "txt")]
    whole = write_tar(tmp_path / "whole.tar", files).read_bytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "cut.tar").write_bytes(whole[:size])
    if size == 1000:
        with pytest.raises(UserError, match=r"no video to import.*to its end"):
            run_import(tmp_path / "in", tmp_path / "out")
        return
    rows, errors = run_import(tmp_path / "in", tmp_path / "out")
    assert [Path(row["uri"]).read_bytes()[:1] for row in rows] == [b"A"]
    assert "cannot be read to its end" in errors[""]


def test_damage_between_members_and_in_gzip_is_told(tmp_path):
    whole = write_tar(tmp_path / "whole.tar", [(f"{index}.mp4", bytes([65 + index]) * 600) for index in range(3)])
    content = whole.read_bytes()
    (tmp_path / "in").mkdir()
    # tarfile takes a header that is none for the end of the tar.
    (tmp_path / "in" / "0.tar").write_bytes(content[:1536] + b"x" * 512 + content[2048:])
    (tmp_path / "in" / "1.tar.gz").write_bytes(gzip.compress(content)[:-20])
    (tmp_path / "in" / "2.tar.gz").write_bytes(b"\x1f\x8b\x08\x04")
    rows, _ = run_import(tmp_path / "in", tmp_path / "out")
    assert {Path(row["uri"]).read_bytes()[:1] for row in rows} >= {b"A"}
    table = pq.read_table(tmp_path / "out" / "errors.parquet").to_pylist()
    assert [Path(error["shard"]).name for error in table] == ["0.tar", "1.tar.gz", "2.tar.gz"]
    assert "damaged where a member should begin" in table[0]["error"]


@pytest.mark.process
def test_a_disk_that_is_full_is_no_damage_of_the_shard(tmp_path):
    shard = write_tar(tmp_path / "in" / "0.tar", [("0.mp4", bytes(100_000))])
    job = [sys.executable, str(JOBS / "import_videos.py"), "--input", str(shard), "--output", str(tmp_path / "out")]

    def limit_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    ended = subprocess.run(job, capture_output=True, text=True, preexec_fn=limit_files)
    assert ended.returncode == 2
    assert re.search(r"Cannot write .*File too large.*run the same command again", ended.stderr)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


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
        ({"a.parquet": b"no parquet"}, "not a parquet file"),
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


def test_names_of_members_are_made_safe_and_stay_different(tmp_path):
    names = ["a.mp4", "../a.mp4", "/a.mp4", "a/b.mp4", "a__b.mp4", "...mp4", ".a.mp4", "x" * 300 + ".mp4", "\u00e9.mp4"]
    shard = write_tar(tmp_path / "in" / "0.tar", [(name, str(number).encode()) for number, name in enumerate(names)])
    rows, errors = run_import(shard, tmp_path / "out")
    assert errors == {}
    paths = [Path(row["uri"]) for row in rows]
    assert sorted(path.read_bytes() for path in paths) == [str(number).encode() for number in range(len(names))]
    (folder,) = {path.parent for path in paths}
    assert folder.parent == tmp_path / "out" / "videos"
    assert folder / "a.mp4" in paths
    assert not any(path.name.startswith(".") for path in paths)


# --- Hugging Face parquet ----------------------------------------------------------------------------------------


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


def write_parquet(path, columns, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)
    return path


def test_a_column_of_lists_of_captions_gives_the_first(tmp_path, capsys):
    write_parquet(tmp_path / "in" / "0.parquet", {"video": [b"x", b"y"], "caption": [["one", "two"], []]})
    rows, errors = run_import(tmp_path / "in", tmp_path / "out")
    assert [row["caption"] for row in rows] == ["one", None]
    assert errors == {}
    assert "1 with the first of several captions" in capsys.readouterr().out


def test_a_column_that_cannot_hold_captions_is_refused_if_it_was_named(tmp_path, caplog):
    shard = write_parquet(tmp_path / "in" / "0.parquet", {"video": [b"x"], "text": [5]})
    with pytest.raises(UserError, match="the column 'text' holds int64, but a caption is text or a list of texts"):
        run_import(shard, tmp_path / "out", "--caption", "text")
    run_import(shard, tmp_path / "out")
    assert "'text' holds int64" in caplog.text


def test_damaged_pages_cost_their_rows(tmp_path):
    videos = [bytes([65 + index]) * 5000 for index in range(6)]
    options = {"row_group_size": 2, "write_page_checksum": True, "use_dictionary": False, "compression": "none"}
    shard = write_parquet(tmp_path / "in" / "0.parquet", {"video": videos}, **options)
    content = shard.read_bytes()
    middle = content.index(b"C" * 50)
    shard.write_bytes(content[: middle + 9] + b"?" + content[middle + 10 :])
    rows, errors = run_import(tmp_path / "in", tmp_path / "out")
    assert [Path(row["uri"]).read_bytes()[:1] for row in rows] == [b"A", b"B", b"E", b"F"]
    assert list(errors) == ["rows 2 to 3"]
    assert "cannot be read" in errors["rows 2 to 3"]


def test_text_that_is_no_utf8_costs_its_own_row(tmp_path):
    latin = pa.array([b"fine", b"\xff", b"fine"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), len(latin), latin.buffers())
    videos = pa.StructArray.from_arrays([pa.array([b"x", b"y", b"z"]), text], ["bytes", "path"])
    write_parquet(tmp_path / "in" / "0.parquet", {"video": videos, "caption": ["a", "b", "c"]})
    write_parquet(tmp_path / "in" / "1.parquet", {"video": [b"x", b"y", b"z"], "caption": text})
    rows, errors = run_import(tmp_path / "in", tmp_path / "out")
    assert sorted(row["caption"] or "" for row in rows) == ["", "a", "c", "fine", "fine"]
    assert "its caption cannot be read" in errors["row 1"]
