"""Garbage of a table: what neither its readers nor the next run need, found and removed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from videogen import storage
from videogen.data.tables import published
from videogen.data.tables.files import (
    COMMITS,
    HISTORY,
    INDEX,
    PARTIAL,
    PARTS,
    SHARDS,
    SUFFIX,
    read_records,
    remove_files,
    stem,
    written_at,
)
from videogen.data.tables.lease import Lease
from videogen.data.tables.parts import read_part_record
from videogen.errors import UserError

RETAIN_S = 7 * 24 * 3600.0
_SUFFIXES = {SHARDS: SUFFIX, INDEX: SUFFIX, PARTS: SUFFIX, COMMITS: SUFFIX, HISTORY: ".json"}
_FOLDERS = ("", *_SUFFIXES)
_FILES_PER_LOOK = 256
"""Removed between two looks at the lease."""


@dataclass(frozen=True)
class Garbage:
    """One file that nobody needs."""

    uri: str
    num_bytes: int


@dataclass(frozen=True)
class _File:
    name: str
    """Its path in the table."""
    num_bytes: int
    written: float
    """In seconds since 1970 by the storage's own clock."""

    @property
    def folder(self) -> str:
        return self.name.rpartition("/")[0]

    @property
    def is_ours(self) -> bool:
        """Whether it has the name of a file that may become garbage; others may be a user's own."""
        return self.name.endswith(_SUFFIXES.get(self.folder, "/"))

    @property
    def is_partial(self) -> bool:
        return self.name.rpartition("/")[2].startswith(".") and self.name.endswith(PARTIAL)


def vacuum(table_uri: str, retain_s: float = RETAIN_S, dry_run: bool = False) -> list[Garbage]:
    """Remove what nobody needs any more, and return it.

    These are shards and index files that the manifest does not name, nor any that it has replaced within the last
    `retain_s`; copies of older manifests; parts and segments of other identities than the manifest's; files that were
    half written. Whatever was written within the last `retain_s` stays. Clips that are planned again after their rows
    were removed are made again.

    Args:
        table_uri: folder of a finished table; no job may be writing it.
        retain_s: how long a reader may use a manifest after it was replaced, in seconds.
        dry_run: whether only to say what would be removed.

    Raises:
        UserError: there is no finished table, or a run is writing it, or takes it over while files are removed.
    """
    uri = storage.absolute(table_uri)
    if not published.read_manifest(uri):
        raise UserError(f"{table_uri!r} holds no finished table: give the --output of a job that has ended well.")
    with Lease(uri) as lease:
        found = _find(uri, lease.since - retain_s)
        for start in range(0, 0 if dry_run else len(found), _FILES_PER_LOOK):
            lease.require()
            remove_files([garbage.uri for garbage in found[start : start + _FILES_PER_LOOK]])
    return found


def find_partials(table_uri: str, before: float) -> list[str]:
    """Return the URIs of what writers that were killed have left half written, sorted."""
    found = [file.name for file in _listed(table_uri) if file.is_partial and file.written < before]
    return sorted(storage.join(table_uri, name) for name in found)


def _find(table_uri: str, before: float) -> list[Garbage]:
    manifest = published.read_manifest(table_uri)
    if not manifest:  # gone since `vacuum` looked: without it, all files would seem to be garbage
        raise UserError(f"{table_uri!r} holds no finished table any more: nothing was removed.")
    listed = list(_listed(table_uri))
    needed = published.named_files(manifest)
    for file in listed:
        if file.folder == HISTORY and file.written >= before:
            needed |= {file.name, *published.named_files(_earlier(storage.join(table_uri, file.name)))}
    old = [file for file in listed if file.written < before]
    identity = manifest.get("identity", "")
    needed |= {file.name for file in old if file.folder == COMMITS and stem(file.name).startswith(f"{identity}-")}
    needed |= _parts_of(identity, table_uri, [file.name for file in old if file.folder == PARTS])
    found = [file for file in old if file.is_partial or (file.is_ours and file.name not in needed)]
    return [Garbage(storage.join(table_uri, file.name), file.num_bytes) for file in found]


def _listed(table_uri: str) -> Iterator[_File]:
    """Yield the files of a table's own folders, sorted."""
    filesystem, root = storage.fsspec_filesystem(table_uri)
    for folder in _FOLDERS:
        try:
            entries = filesystem.ls(storage.join(root, folder) if folder else root, detail=True)
        except FileNotFoundError:
            continue
        for entry in sorted(entries, key=lambda entry: entry["name"]):
            if entry["type"] == "file":
                name = entry["name"].removeprefix(root).lstrip("/")
                yield _File(name, int(entry["size"]), written_at(entry))


def _earlier(uri: str) -> dict[str, Any]:
    """Return what a copy of an earlier manifest says."""
    manifest: dict[str, Any] = storage.read_json(uri)
    return manifest


def _parts_of(identity: str, table_uri: str, names: list[str]) -> set[str]:
    """Return which parts are whole and of this identity: what a run that was stopped has done, for the next one."""
    uris = [storage.join(table_uri, name) for name in names]
    records = read_records(uris, read_part_record)
    return {f"{PARTS}/{record.name}{SUFFIX}" for record in records if record.identity == identity}
