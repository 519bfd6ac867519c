"""Data sets of others, in and out: WebDataset tar shards and Hugging Face parquet."""

from videogen.data.interchange.exporting import ARRAY_FORMS, ExportOptions
from videogen.data.interchange.huggingface_export import export_huggingface
from videogen.data.interchange.huggingface_import import import_huggingface
from videogen.data.interchange.importing import find_shards, import_videos
from videogen.data.interchange.unpacking import ImportResult
from videogen.data.interchange.webdataset_export import export_webdataset
from videogen.data.interchange.webdataset_import import import_webdataset

__all__ = [
    "ARRAY_FORMS",
    "ExportOptions",
    "ImportResult",
    "export_huggingface",
    "export_webdataset",
    "find_shards",
    "import_huggingface",
    "import_videos",
    "import_webdataset",
]
