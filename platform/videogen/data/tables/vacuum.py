"""Vacuum: removal of files that neither readers within the retention period nor the next run need."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from videogen import storage
from videogen.data.tables.data_files import read_part_record
from videogen.data.tables.files import (
    COMMITS,
    HISTORY,
    INDEX,
    PARTS,
    SHARDS,
    SUFFIX,
    read_records,
    stem,
)
from videogen.data.tables.lease import Lease
from videogen.data.tables.manifest import read_manifest, referenced_files
from videogen.errors import UserError

RETAIN_S = 7 * 24 * 3600.0
"""Default retention period in seconds: one week."""
_SUFFIXES = {SHARDS: SUFFIX, INDEX: SUFFIX, PARTS: SUFFIX, COMMITS: SUFFIX, HISTORY: ".json"}
_FOLDERS = ("", *_SUFFIXES)
_FILES_PER_LEASE_CHECK = 256


@dataclass(frozen=True)
class UnreferencedFile:
    """A file that is not needed any more."""

    uri: str
    num_bytes: int


@dataclass(frozen=True)
class _ListedFile:
    name: str
    """Path in the table."""
    num_bytes: int
    modified: float
    """In seconds since 1970 by the storage's clock."""

    @property
    def folder(self) -> str:
        return self.name.rpartition("/")[0]

    @property
    def is_ours(self) -> bool:
        """Whether the table writes files of this name; others belong to users."""
        return self.name.endswith(_SUFFIXES.get(self.folder, "/"))

    @property
    def is_partial(self) -> bool:
        return self.name.rpartition("/")[2].startswith(".") and self.name.endswith(storage.PARTIAL)


def vacuum_table(table_uri: str, retain_s: float = RETAIN_S, dry_run: bool = False) -> list[UnreferencedFile]:
    """Remove unreferenced files of a table; return them.

    These are: shards and index files that neither the current manifest nor one replaced within the last `retain_s`
    names; copies of older manifests; parts and commit files of other identities; unfinished writes. Files modified
    within the last `retain_s` are kept. Items whose rows were removed are processed again if they are planned again.

    Args:
        table_uri: folder of a published table; no job may be writing it.
        retain_s: how long readers may use a manifest after it was replaced, in seconds.
        dry_run: only return what would be removed.

    Raises:
        UserError: there is no published table, or a run is writing it, or takes it over while files are removed.
    """
    uri = storage.absolute(table_uri)
    if not read_manifest(uri):
        raise UserError(f"{table_uri!r} holds no finished table: give the --output of a job that has finished.")
    with Lease(uri) as lease:
        found = _unreferenced(uri, lease.since - retain_s)
        for start in range(0, 0 if dry_run else len(found), _FILES_PER_LEASE_CHECK):
            lease.require()
            storage.remove_files([file.uri for file in found[start : start + _FILES_PER_LEASE_CHECK]])
    return found


def find_partials(table_uri: str, before: float) -> list[str]:
    """Return the sorted URIs of unfinished writes, which killed writers have left, from before a time."""
    found = [file.name for file in _listed(table_uri) if file.is_partial and file.modified < before]
    return sorted(storage.join(table_uri, name) for name in found)


def _unreferenced(table_uri: str, before: float) -> list[UnreferencedFile]:
    manifest = read_manifest(table_uri)
    if not manifest:  # removed since `vacuum_table` read it; without a manifest every file would seem unreferenced
        raise UserError(f"{table_uri!r} holds no finished table any more: nothing was removed.")
    listed = list(_listed(table_uri))
    needed = referenced_files(manifest)
    for file in listed:
        if file.folder == HISTORY and file.modified >= before:
            earlier: dict[str, Any] = storage.read_json(storage.join(table_uri, file.name))
            needed |= {file.name, *referenced_files(earlier)}
    old = [file for file in listed if file.modified < before]
    identity = manifest.get("identity", "")
    needed |= {file.name for file in old if file.folder == COMMITS and stem(file.name).startswith(f"{identity}-")}
    needed |= _parts_of(identity, table_uri, [file.name for file in old if file.folder == PARTS])
    found = [file for file in old if file.is_partial or (file.is_ours and file.name not in needed)]
    return [UnreferencedFile(storage.join(table_uri, file.name), file.num_bytes) for file in found]


def _listed(table_uri: str) -> Iterator[_ListedFile]:
    """Yield the files in the table's own folders, sorted within each."""
    filesystem, root = storage.fsspec_filesystem(table_uri)
    for folder in _FOLDERS:
        try:
            entries = filesystem.ls(storage.join(root, folder) if folder else root, detail=True)
        except FileNotFoundError:
            continue
        for entry in sorted(entries, key=lambda entry: entry["name"]):
            if entry["type"] == "file":
                name = entry["name"].removeprefix(root).lstrip("/")
                yield _ListedFile(name, int(entry["size"]), storage.modified_at(entry))


def _parts_of(identity: str, table_uri: str, names: list[str]) -> set[str]:
    """Return the complete parts of this identity: the work of an interrupted run, which the next one uses."""
    uris = [storage.join(table_uri, name) for name in names]
    records = read_records(uris, read_part_record)
    return {f"{PARTS}/{record.name}{SUFFIX}" for record in records if record.identity == identity}
