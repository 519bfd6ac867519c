"""Import and export of data sets: WebDataset tar shards and Hugging Face parquet."""

from videogen.data.interchange._export import ARRAY_FORMS, ExportOptions
from videogen.data.interchange._huggingface_export import export_huggingface
from videogen.data.interchange._huggingface_import import import_huggingface
from videogen.data.interchange._importing import find_shards, import_videos
from videogen.data.interchange._source_videos import SourceVideo
from videogen.data.interchange._unpacking import MAX_VIDEO_BYTES, ImportResult
from videogen.data.interchange._webdataset_export import export_webdataset
from videogen.data.interchange._webdataset_import import import_webdataset

__all__ = [
    "ARRAY_FORMS",
    "MAX_VIDEO_BYTES",
    "ExportOptions",
    "ImportResult",
    "SourceVideo",
    "export_huggingface",
    "export_webdataset",
    "find_shards",
    "import_huggingface",
    "import_videos",
    "import_webdataset",
]
