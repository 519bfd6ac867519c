"""Import of a data set: detection of its format and shards, and the import itself."""

from collections.abc import Callable

from videogen import storage
from videogen.data.interchange import _huggingface_import, _webdataset_import
from videogen.data.interchange._unpacking import MAX_VIDEO_BYTES, ImportResult
from videogen.errors import UserError


def find_shards(uri: str) -> list[str]:
    """Return the shards of a data set, sorted: the one at `uri`, or all in that folder.

    Raises:
        UserError: there are none, or shards of both formats.
    """
    location = storage.absolute(uri)
    storage.require_readable(location, "Input")
    tar_suffixes = _webdataset_import.SHARD_SUFFIXES
    shards = storage.list_files(location, [*tar_suffixes, *_huggingface_import.SHARD_SUFFIXES])
    if not shards:
        raise UserError(
            f"Input {uri!r} holds no shard: give a folder of WebDataset tars ({', '.join(tar_suffixes)}) "
            f"or Hugging Face parquet files; videos in plain folders need no import."
        )
    tars = [shard for shard in shards if _is_tar(shard)]
    if len(tars) not in (0, len(shards)):
        raise UserError(f"Input {uri!r} holds both tar and parquet files: give the folder of one kind.")
    return shards


def import_videos(
    shards: list[str],
    output: str,
    root: str,
    video: str | None = None,
    caption: str | None = None,
    max_video_bytes: int = MAX_VIDEO_BYTES,
    advance: Callable[[], None] = lambda: None,
) -> ImportResult:
    """Copy the videos of shards into a folder and write a manifest; a repeated call resumes.

    Args:
        shards: result of `find_shards`.
        output: folder.
        root: folder of the data set.
        video: column of videos; only for parquet.
        caption: column of the caption, or its key in a sample's json.
        max_video_bytes: size limit of a video.
        advance: called after each shard.

    Raises:
        UserError: no video in any shard, no such column, or `output` is not writable.
    """
    if max_video_bytes < 1:
        raise UserError(f"A size limit of {max_video_bytes} bytes for videos is not possible: give a positive number.")
    if f"{storage.absolute(output)}/".startswith(f"{storage.absolute(root)}/"):
        raise UserError(f"Output {output!r} is in the folder of the shards: a later run would import it. Give another.")
    if not _is_tar(shards[0]):
        return _huggingface_import.import_huggingface(shards, output, root, video, caption, max_video_bytes, advance)
    if video is not None:
        raise UserError(f"A column of videos ({video!r}) was given, but {shards[0]!r} is a tar, which has no columns.")
    return _webdataset_import.import_webdataset(shards, output, caption, max_video_bytes, advance)


def _is_tar(shard: str) -> bool:
    return shard.lower().endswith(_webdataset_import.SHARD_SUFFIXES)
