"""Sources: folders, prefixes and manifests as one ordered stream, captions joined to it, and what is refused."""

import json
import os
import tracemalloc
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from videogen import storage
from videogen.data.sources import (
    GIVEN_VERSION,
    find_captions,
    find_versions,
    list_files,
    open_source,
    source_schema,
    video_id,
)
from videogen.errors import UserError
from videogen.hashing import content_hash


def read(source, rows=65536):
    batches = list(source.batches(rows))
    assert all(batch.schema == source_schema() for batch in batches)
    assert all(0 < len(batch) <= rows for batch in batches)
    return pa.Table.from_batches(batches).to_pylist()


def make_files(folder, *names):
    for index, name in enumerate(names):
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(index + 1))


# --- folders and prefixes ----------------------------------------------------------------------------------------

# "-" and "." come before "/", letters after it: the order of paths is not that of folders.
NUM_OBJECTS = 1005
NAMES = [
    "a/b.mp4",
    "a-b/c.mp4",
    "a.mp4",
    "ab.mp4",
    "a/b/c.MP4",
    "a/b-c.mp4",
    "\u00e9/\U0001f3a5.webm",
    "z.txt",
    "\uffee.mp4",
]


def in_order(names):
    return sorted((name for name in names if not name.endswith(".txt")), key=lambda name: name.encode())


def test_a_folder_is_listed_in_the_order_of_paths_whatever_the_batches(tmp_path):
    make_files(tmp_path, *NAMES)
    source = open_source(str(tmp_path))
    rows = read(source)
    assert [row["path"] for row in rows] == in_order(NAMES)
    assert read(source, rows=2) == rows
    for row in rows:
        status = (tmp_path / row["path"]).stat()
        assert row["uri"] == str(tmp_path / row["path"])
        assert (row["size_bytes"], row["caption"]) == (status.st_size, None)
        assert row["version"] == f"{status.st_size}-{status.st_mtime}"
        assert row["video_id"] == video_id(row["uri"], row["version"]) == content_hash(row["uri"], row["version"])


@settings(deadline=None)  # a busy machine is no slow program
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=4), max_size=6))
def test_any_names_come_in_the_order_of_their_bytes(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("names")
    made = set()
    for first in set(names) - {".", ".."}:
        for second in ("", "x.mp4", "-x.mp4"):
            name = f"{first}/{second}" if second else f"{first}.mp4"
            make_files(folder, name)
            made.add(name)
    assert [entry.path for entry in list_files(str(folder))] == sorted(made, key=str.encode)


def test_files_that_are_no_videos_by_their_names_are_told_of(tmp_path):
    make_files(tmp_path, "a.mp4", "B.MTS", "c.wmv", ".hidden", "captions.csv", "notes.txt", "more/thumb.jpg")
    source = open_source(str(tmp_path))
    assert [row["path"] for row in read(source)] == in_order(["a.mp4", "B.MTS", "c.wmv"])
    (note,) = source.notes
    assert "2 files are ignored because they have no video suffix, e.g. 'more/thumb.jpg'" in note
    assert read(source)
    assert source.notes == [note]


def test_a_prefix_is_listed_as_a_folder_is(s3, tmp_path):
    for name in NAMES:
        storage.write_bytes(f"{s3}/videos/{name}", b"x" * len(name))
    storage.write_bytes(f"{s3}/videos-of-others/no.mp4", b"x")
    rows = read(open_source(f"{s3}/videos/"), rows=3)
    assert [row["path"] for row in rows] == in_order(NAMES)
    assert {row["uri"] for row in rows} == {f"{s3}/videos/{name}" for name in in_order(NAMES)}
    assert all(row["size_bytes"] == len(row["path"]) and row["version"] for row in rows)


@pytest.fixture(scope="module")
def long_prefix(s3_endpoint):
    """Return a prefix with more objects than S3 lists in one request."""
    import boto3

    client = boto3.client("s3")
    for index in range(NUM_OBJECTS):
        client.put_object(Bucket="videogen-test", Key=f"long/{index:04}.mp4", Body=b"x" * (index % 7))
    return "s3://videogen-test/long"


def test_a_listing_goes_on_after_its_first_page(long_prefix):
    rows = read(open_source(long_prefix), rows=999)
    assert [row["path"] for row in rows] == [f"{index:04}.mp4" for index in range(NUM_OBJECTS)]


def test_versions_of_some_files_in_a_long_prefix(long_prefix):
    wanted = [0, 1, 998, 999, 1000, NUM_OBJECTS - 1]
    uris = [f"{long_prefix}/{index:04}.mp4" for index in wanted] + [f"{long_prefix}/{name}" for name in ("0500", "9")]
    found = find_versions(uris)
    assert [size for _, size in found] == [index % 7 for index in wanted] + [None, None]
    assert [version == "" for version, _ in found] == [False] * len(wanted) + [True, True]
    assert find_versions(uris[::-1]) == found[::-1]
    everything = [f"{long_prefix}/{index:04}.mp4" for index in range(NUM_OBJECTS)]
    assert [size for _, size in find_versions(everything)] == [index % 7 for index in range(NUM_OBJECTS)]


def test_a_replaced_file_is_another_video(tmp_path, s3):
    for root in (str(tmp_path), s3):
        storage.write_bytes(f"{root}/a.mp4", b"one")
        storage.write_bytes(f"{root}/b.mp4", b"two")
        first = read(open_source(root))
        assert read(open_source(root)) == first
        storage.write_bytes(f"{root}/a.mp4", b"three")
        second = read(open_source(root))
        assert second[0]["video_id"] != first[0]["video_id"]
        assert second[1] == first[1]


def test_links_are_followed_but_never_round_and_round(tmp_path):
    make_files(tmp_path, "real/a.mp4", "corpus/b.mp4")
    (tmp_path / "corpus" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "corpus" / "c.mp4").symlink_to(tmp_path / "real" / "a.mp4")
    (tmp_path / "real" / "back").symlink_to(tmp_path / "corpus")
    (tmp_path / "corpus" / "gone.mp4").symlink_to(tmp_path / "nowhere")
    rows = read(open_source(str(tmp_path / "corpus")))
    assert [row["path"] for row in rows] == ["b.mp4", "c.mp4", "gone.mp4", "linked/a.mp4"]
    assert rows[1]["version"] == rows[3]["version"]
    assert (rows[2]["version"], rows[2]["size_bytes"]) == ("", None)


def test_a_name_that_is_no_utf8_is_a_row_too(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4")).write_bytes(b"x")
    (row,) = read(open_source(str(tmp_path)))
    assert (row["path"], row["version"]) == ("\\xff.mp4", "")


def test_one_video_is_a_source(tmp_path, s3):
    for root in (str(tmp_path), s3):
        storage.write_bytes(f"{root}/a.mp4", b"abc")
        (row,) = read(open_source(f"{root}/a.mp4"))
        assert (row["path"], row["uri"], row["size_bytes"]) == ("a.mp4", f"{root}/a.mp4", 3)


# --- manifests ---------------------------------------------------------------------------------------------------


def write_table(path, columns):
    """Write columns in the format that the name asks for; return the path as text."""
    frame = pd.DataFrame(columns)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_json(path, orient="records", lines=True)
    return str(path)


@pytest.fixture(params=["parquet", "csv", "jsonl"])
def suffix(request):
    return request.param


def test_a_manifest_is_the_same_in_every_format(tmp_path, suffix):
    make_files(tmp_path, "lists/x.mp4", "lists/sub/y.mp4", "z.mp4")
    names = ["./x.mp4", "../z.mp4", "sub/y.mp4", f"file://{tmp_path}/lists/sub/y.mp4", "gone.mp4"]
    captions = ["a ball,\n rolling ", None, None, 'a "cat"', "\u00e9t\u00e9"]
    columns = {"video": names, "caption": captions, "license": ["x"] * 5, "shard": range(5)}
    source = open_source(write_table(tmp_path / "lists" / f"m.{suffix}", columns))
    rows = read(source)
    assert [(row["path"], row["caption"]) for row in rows] == [
        (f"{tmp_path}/z.mp4", None),
        ("gone.mp4", "\u00e9t\u00e9"),
        ("sub/y.mp4", 'a "cat"'),
        ("x.mp4", "a ball, rolling"),
    ]
    assert [row["uri"] for row in rows[2:]] == [f"{tmp_path}/lists/sub/y.mp4", f"{tmp_path}/lists/x.mp4"]
    assert [row["size_bytes"] for row in rows] == [3, None, 2, 1]
    assert rows[1]["version"] == ""
    assert source.has_captions
    assert source.num_duplicates == 1
    assert "license, shard" in source.notes[0]
    assert "1 rows name a video that another row names too" in source.notes[1]
    assert read(source, rows=1) == rows


def test_a_manifest_in_a_bucket_finds_versions_by_listing(s3, tmp_path, suffix):
    for name in ("v/a.mp4", "v/b.mp4", "other/c.mp4"):
        storage.write_bytes(f"{s3}/{name}", name.encode())
    (tmp_path / "local.mp4").write_bytes(b"x")
    names = ["v/b.mp4", "v/a.mp4", f"{s3}/other/c.mp4", "v/gone.mp4", str(tmp_path / "local.mp4")]
    storage.upload(write_table(tmp_path / f"m.{suffix}", {"video": names}), f"{s3}/m.{suffix}")
    source = open_source(f"{s3}/m.{suffix}")
    rows = {row["path"]: row for row in read(source)}
    assert list(rows) == [str(tmp_path / "local.mp4"), "other/c.mp4", "v/a.mp4", "v/b.mp4", "v/gone.mp4"]
    listed = {row["uri"]: row for row in read(open_source(s3)) if row["path"].endswith(".mp4")}
    for name in ("other/c.mp4", "v/a.mp4", "v/b.mp4"):
        assert rows[name]["video_id"] == listed[f"{s3}/{name}"]["video_id"]
        assert rows[name]["size_bytes"] == len(name)
    assert rows["v/gone.mp4"]["version"] == ""
    assert rows[str(tmp_path / "local.mp4")]["size_bytes"] == 1
    assert not source.has_captions


def test_a_version_column_names_the_content(tmp_path, suffix):
    make_files(tmp_path, "b.mp4")
    path = tmp_path / f"m.{suffix}"
    rows = read(open_source(write_table(path, {"video": ["a.mp4", "b.mp4"], "version": ["v1", ""]})))
    assert (rows[0]["version"], rows[0]["size_bytes"]) == (f"{GIVEN_VERSION}v1", None)
    assert rows[1]["version"].startswith("1-")
    changed = read(open_source(write_table(path, {"video": ["a.mp4", "b.mp4"], "version": ["v2", ""]})))
    assert changed[0]["video_id"] != rows[0]["video_id"]
    assert changed[1] == rows[1]


@pytest.mark.slow
def test_the_rows_of_a_manifest_are_not_held(tmp_path):
    names = [f"s3://bucket/{index:07}.mp4" for index in range(30_000)]
    path = write_table(tmp_path / "m.parquet", {"video": names, "version": names})
    source = open_source(path)
    tracemalloc.start()
    count = sum(len(batch) for batch in source.batches(1000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == len(names)
    assert peak < 4 << 20


# --- captions ----------------------------------------------------------------------------------------------------


def test_captions_by_path_and_by_uri_in_every_format(tmp_path, suffix):
    make_files(tmp_path, "a.mp4", "b/c.mp4", "d.mp4", "e.mp4")
    names = ["./d.mp4", str(tmp_path / "b" / "c.mp4"), "elsewhere.mp4", "a.mp4", "a.mp4", "a.mp4"]
    captions = [" one  two ", "three", "four", None, "five", "six"]
    table = write_table(tmp_path / f"captions.{suffix}", {"video": names, "caption": captions})
    assert find_captions(str(tmp_path)) == table
    source = open_source(str(tmp_path), table)
    assert source.has_captions
    described = {row["path"]: row["caption"] for row in read(source)}
    assert described == {"a.mp4": "five", "b/c.mp4": "three", "d.mp4": "one two", "e.mp4": None}
    assert {row["path"]: row["caption"] for row in read(source, rows=1)} == described


def test_captions_in_a_bucket(s3, tmp_path):
    for name in ("a.mp4", "b.mp4"):
        storage.write_bytes(f"{s3}/c/{name}", b"x")
    table = write_table(tmp_path / "t.csv", {"video": [f"{s3}/c/a.mp4", "b.mp4"], "caption": ["one", "two"]})
    storage.upload(table, f"{s3}/c/captions.csv")
    captions = find_captions(f"{s3}/c")
    assert [row["caption"] for row in read(open_source(f"{s3}/c", captions))] == ["one", "two"]


def test_captions_go_before_those_of_a_manifest(tmp_path):
    manifest = write_table(tmp_path / "m.csv", {"video": ["a.mp4", "b.mp4"], "caption": ["old", "kept"]})
    captions = write_table(tmp_path / "c.jsonl", {"video": ["a.mp4"], "caption": ["new"]})
    assert [row["caption"] for row in read(open_source(manifest, captions))] == ["new", "kept"]


def test_captions_are_joined_across_batches(tmp_path):
    # Some of the videos have captions, and most of the captions have no video.
    folder = tmp_path / "videos"
    make_files(folder, *[f"{index:03}.mp4" for index in range(0, 300, 3)])
    names = [f"{index:03}.mp4" for index in range(0, 300, 2)]
    names += [f"{index:06}.mp4" for index in range(70_000)]
    captions = write_table(tmp_path / "c.parquet", {"video": names, "caption": names})
    for row in read(open_source(str(folder), captions), rows=7):
        assert row["caption"] == (row["path"] if int(row["path"][:3]) % 2 == 0 else None)


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.csv", None, "does not exist"),
        ("notes.txt", "a", "neither a video"),
        ("m.csv", "vido,caption\na.mp4,x\n", "no column 'video'.*Did you mean 'vido'"),
        ("m.csv", "video;caption\na.mp4;x\n", "separated by semicolons"),
        ("m.csv", "video\tcaption\na.mp4\tx\n", "separated by tabs"),
        ("m.csv", "video,caption\na.mp4,x\nb.mp4,y,z\n", "#3"),
        ("m.csv", "video,video\na.mp4,x\n", "two columns 'video'"),
        ("m.csv", "video,caption\n", "no row"),
        ("m.csv", "", "no column 'video'"),
        ("m.csv", "video,caption\na.mp4,\nb.mp4, \n", "without any caption"),
        ("m.csv", "video,caption\na.mp4,x\n  ,y\n", "row 2 names no video"),
        ("m.csv", b"video\n\xff\xfe.mp4\n", "UTF-8"),
        ("m.jsonl", '{"video": "a.mp4"}\n{"video": "b.mp4"\n', "line 2 is not JSON"),
        ("m.jsonl", '{"video": "a.mp4"}\n\n["b.mp4"]\n', "line 3 is not a JSON object"),
        ("m.jsonl", '{"video": "a.mp4", "caption": ["x"]}\n', "'caption' is not text in line 1"),
        ("m.jsonl", '{"vidoe": "a.mp4"}\n', "no column 'video'.*Did you mean 'vidoe'"),
        ("m.jsonl", '{"video": "gs://bucket/a.mp4"}\n', "gs://"),
        ("m.jsonl", '{"video": "a.mp4", "x": ' + "[" * 50_000 + "]" * 50_000 + "}", "line 1 is nested too deeply"),
        ("m.jsonl", '{"video": "a.mp4", "video": "b.mp4"}\n', "line 1 names 'video' twice"),
        ("m.jsonl", '{"video": "a.mp4"}\n{"video": true}\n', "'video' is not text in line 2, but bool"),
        ("m.jsonl", b"x" * ((16 << 20) + 1), "line 1 is longer than"),
        ("m.csv", "video,caption\na\0.mp4,x\n", "row 1 names a video with a NUL"),
        ("m.csv", "video,caption\n".encode("utf-16"), "not UTF-8 text, but e.g. UTF-16"),
        ("m.csv", "Video,video\na.mp4,x\n", "a column 'Video' beside 'video'"),
        ("m.csv", "video, caption\na.mp4,x\n", "a column ' caption' that is not read"),
        ("m.csv", "video," + "x" * (1 << 16) + "\na.mp4,x\n", "does not end within 65536 bytes"),
        ("m.csv", 'video,caption\na.mp4,"x' + "\ny" * (2 << 20), "a quote that is never closed"),
        ("m.csv", ",".join(f"c{number}" for number in range(500)) + "\n", "c19 and 480 more"),
        ("m.jsonl", "", "no column 'video'|no row|empty"),
        ("m.parquet", b"PAR1 nothing", "not a parquet table"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_manifest_that_cannot_be_understood_is_refused(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=words) as caught:
        open_source(str(tmp_path / name))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "names", "words"),
    [
        ([["a.mp4"], ["b.mp4"]], ["video", "video"], "two columns 'video'"),
        ([["a.mp4"], [True]], ["video", "caption"], "'caption' holds bool"),
        ([["a.mp4", "b.mp4"], [b"good", b"\xff"]], ["video", "caption"], "'caption' is not UTF-8 text in row 2"),
    ],
)
def test_a_parquet_manifest_that_cannot_be_understood_is_refused(tmp_path, columns, names, words):
    arrays = [pa.array(column) for column in columns]
    # Whoever writes parquet may call any bytes text.
    arrays = [array.view(pa.string()) if array.type == pa.binary() else array for array in arrays]
    pq.write_table(pa.Table.from_arrays(arrays, names=names), tmp_path / "m.parquet")
    with pytest.raises(UserError, match=words):
        open_source(str(tmp_path / "m.parquet"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4), end=st.floats(0, 2))
def test_a_damaged_manifest_is_read_or_refused_in_one_sentence(tmp_path, suffix, flips, end):
    table = Path(write_table(tmp_path / f"whole.{suffix}", {"video": ["a.mp4", "b.mp4"] * 9, "caption": ["x"] * 18}))
    data = bytearray(table.read_bytes())
    for place, value in flips:
        data[int(place * (len(data) - 1))] = value
    path = tmp_path / f"m.{suffix}"
    path.write_bytes(data[: int(end * len(data))] if end < 1 else data)
    refusal = ""
    try:
        read(open_source(str(path)))
    except UserError as error:
        refusal = str(error)
    assert not refusal or str(path) in refusal
    assert "\n" not in refusal


def test_a_column_of_videos_themselves_is_refused_with_the_cure(tmp_path):
    path = tmp_path / "m.parquet"
    pd.DataFrame({"video": [{"bytes": b"x", "path": "a.mp4"}]}).to_parquet(path)
    with pytest.raises(UserError, match=r"jobs/import_videos\.py"):
        open_source(str(path))


@pytest.mark.parametrize("make", [False, True])
def test_a_folder_that_holds_nothing_is_refused(tmp_path, make):
    if make:
        (tmp_path / "corpus").mkdir()
    with pytest.raises(UserError, match="empty folder" if make else "does not exist"):
        open_source(str(tmp_path / "corpus"))


def test_a_folder_without_videos_is_refused(tmp_path):
    make_files(tmp_path, "notes.txt")
    with pytest.raises(UserError, match=r"holds no video: put files there that end in \.mp4"):
        open_source(str(tmp_path))
    make_files(tmp_path, "00000.tar")
    with pytest.raises(UserError, match=r"00000\.tar.*import_videos"):
        open_source(str(tmp_path))


def test_a_bucket_that_does_not_exist_is_refused(s3_endpoint, tmp_path):
    with pytest.raises(UserError, match="no-such-bucket"):
        open_source("s3://no-such-bucket/videos")
    manifest = write_table(tmp_path / "m.csv", {"video": ["s3://no-such-bucket/a.mp4"]})
    with pytest.raises(UserError, match=r"Cannot list Input 's3://no-such-bucket'"):
        open_source(manifest)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"video": ["0.mp4"], "text": ["a"]}, "no column 'caption'"),
        ({"file": ["0.mp4"], "caption": ["a"]}, "no column 'video'"),
        ({"video": ["9.mp4"], "caption": ["a"]}, "describe none of the 1 videos"),
        ({"video": ["0.mp4"], "caption": ["  "]}, "describe none of the 1 videos"),
        ({"video": ["0.mp4"], "caption": [None]}, "describe none of the 1 videos"),
    ],
)
def test_captions_that_do_not_fit_are_refused(tmp_path, suffix, columns, words):
    make_files(tmp_path, "0.mp4")
    captions = write_table(tmp_path / f"captions.{suffix}", columns)
    with pytest.raises(UserError, match=words):
        open_source(str(tmp_path), captions)


def test_jsonl_with_a_byte_order_mark_and_late_captions_is_read(tmp_path):
    lines = [json.dumps({"video": f"{index}.mp4"}) for index in range(3)]
    lines[2] = json.dumps({"video": "2.mp4", "caption": 7})
    (tmp_path / "m.jsonl").write_text("\ufeff" + "\n".join(lines))
    source = open_source(str(tmp_path / "m.jsonl"))
    assert [row["caption"] for row in read(source)] == [None, None, "7"]
    assert source.has_captions
