"""Video sources: folders, S3 prefixes, single videos and manifests as one ordered stream, with captions."""

from videogen.data.sources._captions import CAPTIONS_NAMES, find_captions
from videogen.data.sources._listing import Entry, find_versions, list_files
from videogen.data.sources._source import (
    GIVEN_VERSION,
    Source,
    Video,
    open_corpus,
    open_readable_corpus,
    open_source,
    source_schema,
    version_mismatch,
    video_id,
)
from videogen.data.sources._text_table import TABLE_SUFFIXES, well_formed

__all__ = [
    "CAPTIONS_NAMES",
    "GIVEN_VERSION",
    "TABLE_SUFFIXES",
    "Entry",
    "Source",
    "Video",
    "find_captions",
    "find_versions",
    "list_files",
    "open_corpus",
    "open_readable_corpus",
    "open_source",
    "source_schema",
    "version_mismatch",
    "video_id",
    "well_formed",
]
