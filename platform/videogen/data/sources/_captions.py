"""Captions of a corpus: the table beside the videos, and its join with a stream of videos in path order."""

from typing import TYPE_CHECKING

from videogen import storage
from videogen.data.sources._text_table import TABLE_SUFFIXES
from videogen.data.sources._video_table import VideoTable

if TYPE_CHECKING:
    import pyarrow as pa

CAPTIONS_NAMES = tuple(f"captions{suffix}" for suffix in TABLE_SUFFIXES)
"""File names of a caption table; a folder that holds one is a captioned corpus."""


def find_captions(folder: str) -> str | None:
    """Return the URI of the caption table in a folder, or None if there is none."""
    filesystem, path = storage.fsspec_filesystem(folder)
    return next((f"{folder}/{name}" for name in CAPTIONS_NAMES if filesystem.exists(f"{path}/{name}")), None)


class CaptionJoin:
    """Merge join of captions with videos; both are sorted by path, so neither is held in memory.

    Args:
        table: columns `video` and `caption`.
    """

    def __init__(self, table: VideoTable) -> None:
        self._batches = table.batches()
        self._pending = next(self._batches, None)

    def captions_of(self, paths: "pa.Array") -> "pa.Array":
        """Return the caption of each path, or null. Successive calls pass increasing paths."""
        import pyarrow as pa
        import pyarrow.compute as pc

        matched = []
        while self._pending is not None:
            matched.append(self._pending.filter(pc.is_in(self._pending["path"], paths)))
            self._pending = self._pending.filter(pc.greater(self._pending["path"], paths[-1]))
            if len(self._pending):
                break
            self._pending = next(self._batches, None)
        if not matched:
            return pa.nulls(len(paths), pa.string())
        found = pa.Table.from_batches(matched).combine_chunks()
        captions = found["caption"].combine_chunks()
        return captions.take(pc.index_in(paths, value_set=found["path"].combine_chunks()))
