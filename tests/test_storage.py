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
