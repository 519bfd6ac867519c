"""Storage by URI: local paths, `file://` and `s3://` behind one set of functions."""

from videogen.storage.checks import readable_uri, require_readable, require_writable, writable_uri
from videogen.storage.files import (
    add_files,
    exists,
    is_dir,
    list_dirs,
    list_files,
    local_copy,
    read_bytes,
    read_json,
    read_text,
    remove,
    upload,
    version,
    write_bytes,
    write_if_changed,
    write_json,
    write_text,
)
from videogen.storage.filesystems import arrow_filesystem, fsspec_filesystem
from videogen.storage.uris import absolute, is_remote, join, parent, require_parent

__all__ = [
    "absolute",
    "add_files",
    "arrow_filesystem",
    "exists",
    "fsspec_filesystem",
    "is_dir",
    "is_remote",
    "join",
    "list_dirs",
    "list_files",
    "local_copy",
    "parent",
    "read_bytes",
    "read_json",
    "read_text",
    "readable_uri",
    "remove",
    "require_parent",
    "require_readable",
    "require_writable",
    "upload",
    "version",
    "writable_uri",
    "write_bytes",
    "write_if_changed",
    "write_json",
    "write_text",
]
