"""Corpus to encode: raw videos, or a clips table."""

import itertools
from typing import Any

from videogen import storage
from videogen.data.datasets.clips_schema import CLIPS
from videogen.data.datasets.clips_table import ClipsTable
from videogen.data.sources import Video, open_readable_corpus
from videogen.data.tables import kind_of
from videogen.hashing import json_hash


class Corpus:
    """Raw videos (a folder, an S3 prefix, a manifest) or a clips table, validated when opened.

    Args:
        uri: location of the corpus.
        captions: table of captions; None: `captions.*` in the folder, if any.
        what: name of the corpus in error messages.

    Raises:
        UserError: missing, empty, unreadable, or captions that describe none of the videos.
    """

    def __init__(self, uri: str, captions: str | None = None, what: str = "Data") -> None:
        self.uri = storage.readable_uri(uri, what)
        self.clips = ClipsTable.open(self.uri) if is_clips_table(self.uri) else None
        if self.clips is not None:
            self.has_captions = self.clips.has_captions
            return
        self._source = open_readable_corpus(self.uri, captions, what)
        self.has_captions = self._source.has_captions

    def first(self, count: int) -> list[Video]:
        """Return the first videos that can be encoded; in a captioned corpus, those with a caption."""
        usable = (video for video in self._source.videos() if video.caption or not self.has_captions)
        return list(itertools.islice(usable, count))

    def identity(self) -> Any:
        """Return a JSON value that changes when the videos or their captions do."""
        if self.clips is not None:
            return self.clips.fingerprint
        return json_hash([batch.to_pylist() for batch in self._source.batches()], digits=12)


def is_clips_table(uri: str) -> bool:
    """Return whether `uri` holds a published clips table."""
    return storage.is_dir(uri) and kind_of(uri) == CLIPS.name
