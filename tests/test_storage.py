"""URIs, local and on S3: what they name, and files that change whole or not at all."""

from pathlib import Path

import pytest

from videogen import storage
from videogen.errors import UserError


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/a/b/c", "/a/b"),
        ("/a/b/c/", "/a/b"),
        ("/a", "/"),
        ("s3://bucket/a/b", "s3://bucket/a"),
        ("s3://bucket/a", "s3://bucket"),
        ("s3://bucket", "s3://bucket"),
    ],
)
def test_the_parent_of_a_uri_has_its_scheme(uri: str, expected: str) -> None:
    assert storage.parent(uri) == expected


def test_beside_a_whole_bucket_nothing_can_be() -> None:
    assert storage.require_parent("s3://bucket/model", "Output") == "s3://bucket"
    with pytest.raises(UserError, match="whole bucket"):
        storage.require_parent("s3://bucket", "Output")


def test_a_relative_path_becomes_absolute_and_a_uri_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("runs/model") == str(tmp_path / "runs" / "model")
    assert storage.absolute("s3://bucket/model") == "s3://bucket/model"


def test_a_file_with_the_same_content_keeps_its_version(tmp_path: Path) -> None:
    file = str(tmp_path / "folder" / "table")
    storage.write_if_changed(file, b"one")
    before = storage.version(file)
    storage.write_if_changed(file, b"one")
    assert storage.version(file) == before != ""
    storage.write_if_changed(file, b"three")
    assert storage.read_bytes(file) == b"three"
    assert storage.version(file) != before
    assert storage.version(str(tmp_path / "nothing")) == ""


def test_a_copy_from_s3_leaves_out_what_is_excluded(s3: str) -> None:
    for name in ("model_index.json", "base/config.json", "training/base/checkpoint", "stages/base.json"):
        storage.write_bytes(storage.join(s3, "model", name), name.encode())
    with storage.local_copy(storage.join(s3, "model"), exclude=("training/", "stages/")) as folder:
        files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {"model_index.json", "base/config.json"}


def test_a_folder_is_replaced_whole_or_added_to(s3: str, tmp_path: Path) -> None:
    for root in (s3, str(tmp_path / "there")):
        for name in ("old.bin", "kept/old.bin"):
            storage.write_bytes(storage.join(root, "folder", name), b"old")
        storage.write_bytes(storage.join(root, "folder_beside", "old.bin"), b"old")
        new = tmp_path / "new"
        (new / "kept").mkdir(parents=True, exist_ok=True)
        (new / "kept" / "new.bin").write_bytes(b"new")
        folder = storage.join(root, "folder")

        def files(folder: str = folder) -> set[str]:
            return {uri.removeprefix(f"{folder}/") for uri in storage.list_files(folder)}

        storage.add_files(new, folder)
        assert files() == {"old.bin", "kept/old.bin", "kept/new.bin"}
        storage.upload(new, folder)
        assert files() == {"kept/new.bin"}
        assert storage.exists(storage.join(root, "folder_beside", "old.bin"))


def test_asking_whether_an_output_can_be_written_leaves_no_trace(s3: str, tmp_path: Path) -> None:
    for root in (s3, str(tmp_path / "deep" / "below")):
        storage.require_writable(root, "Output")
        assert not storage.exists(root)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="Cannot write Output"):
            storage.require_writable(str(place), "Output")


def test_a_broken_json_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('{"a": [1, 2')
    with pytest.raises(UserError, match=r"cut\.json.* is not JSON"):
        storage.read_json(str(tmp_path / "cut.json"))


def test_a_uri_is_checked_and_made_absolute_in_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "one.mp4").write_bytes(b"")
    assert storage.readable_uri("clips", "Input") == str(tmp_path / "clips")
    assert storage.writable_uri("latents", "Output") == str(tmp_path / "latents")
    assert not (tmp_path / "latents").exists()
    with pytest.raises(UserError, match="Input 'clip' does not exist"):
        storage.readable_uri("clip", "Input")
    for check in (storage.readable_uri, storage.writable_uri):
        with pytest.raises(UserError, match="is empty"):
            check("", "URI")
