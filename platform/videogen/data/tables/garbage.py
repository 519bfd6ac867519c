"""Which files of a table nobody needs: not the readers of its manifest, not the next run."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from videogen import storage
from videogen.data.tables.files import COMMITS, INDEX, PARTIAL, PARTS, SHARDS, SUFFIX, stem


def find(
    table_uri: str,
    manifest: Mapping[str, Any],
    parts: Collection[str],
    segments: Collection[str],
    before: float,
) -> list[str]:
    """Return the URIs of garbage, sorted.

    Args:
        table_uri: folder of the table.
        manifest: what readers see.
        parts: names of the parts that are needed.
        segments: names of the segments that are needed.
        before: seconds since 1970 by the storage's own clock; what was written later may be another's work.
    """
    shards = [shard["name"] for shard in manifest.get("shards", [])]
    named = {stem(name) for name in [*shards, *manifest.get("index", {}).get("files", [])]}
    needed = {SHARDS: named, INDEX: named, PARTS: parts, COMMITS: segments}
    found = []
    for relative in _written_before(table_uri, before):
        folder, _, name = relative.rpartition("/")
        unneeded = folder in needed and name.endswith(SUFFIX) and stem(name) not in needed[folder]
        if unneeded or _is_partial(relative):
            found.append(storage.join(table_uri, relative))
    return found


def find_partials(table_uri: str, before: float) -> list[str]:
    """Return the URIs of what writers that were killed have left half written, sorted."""
    return [storage.join(table_uri, name) for name in _written_before(table_uri, before) if _is_partial(name)]


def _written_before(table_uri: str, before: float) -> list[str]:
    filesystem, root = storage.fsspec_filesystem(table_uri)
    listed = filesystem.find(root, detail=True).items()
    return sorted(path.removeprefix(root).lstrip("/") for path, entry in listed if written_at(entry) < before)


def _is_partial(relative: str) -> bool:
    folder, _, name = relative.rpartition("/")
    return name.startswith(".") and name.endswith(PARTIAL) and folder in ("", SHARDS, INDEX, PARTS, COMMITS)


def part_of(uri: str) -> str:
    """Return the name of the part at `uri`; "" if it is no part."""
    return stem(uri) if uri.rsplit("/", 2)[-2] == PARTS else ""


def written_at(entry: Mapping[str, Any]) -> float:
    """Return when a listed file was last written, in seconds since 1970 by the storage's own clock."""
    time = entry.get("LastModified", entry.get("mtime", 0.0))
    return time.timestamp() if isinstance(time, datetime) else float(time)
