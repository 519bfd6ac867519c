"""Manifest of a table: the snapshot that readers see; its validation, its content, and its atomic replacement.

`manifest.json` names the shards and index files of the current snapshot. This package knows the sections that all
tables share; the kinds of tables, with their own sections, are defined by the packages that write and read them. A
replaced manifest is copied to `history/`, so `vacuum_table` knows which files readers of earlier snapshots still use.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import pydantic

from videogen import storage
from videogen.data.tables.files import HISTORY, MANIFEST_NAME
from videogen.errors import UserError
from videogen.hashing import short_hash

Count = Annotated[int, pydantic.Field(ge=0)]


class ManifestSection(pydantic.BaseModel):
    """Base of the sections of a manifest; keys that a model does not name are allowed."""

    model_config = pydantic.ConfigDict(strict=True, protected_namespaces=())


class _Counts(ManifestSection):
    planned: Count
    ok: Count
    filtered: Count
    failed: Count
    rows: Count


class _Shard(ManifestSection):
    name: str
    rows: Count
    bytes: Count
    rows_per_group: Annotated[int, pydantic.Field(ge=1)]


class _Index(ManifestSection):
    files: list[str]
    rows: Count


class TableManifest(ManifestSection):
    """Keys that every manifest has; a kind of table adds its own in a subclass."""

    identity: str
    counts: _Counts
    shards: list[_Shard]
    index: _Index


@dataclass(frozen=True)
class TableKind:
    """A kind of table: its name and schema version in the manifest, and the manifest's schema."""

    name: str
    """Value of "kind" in the manifest."""
    schema_version: int
    manifest: type[TableManifest]
    written_by: str
    """Command that writes such a table, for error messages."""
    vector_columns: tuple[str, ...] = ()
    """Binary columns that hold float16 vectors without a column for their shape."""
    provenance_keys: tuple[str, ...] = ()
    """Keys of the manifest that say how the rows were made, e.g. measurements, and may differ for equal rows."""

    def validate(self, manifest: Mapping[str, Any], uri: str) -> None:
        """Check that a manifest of this kind and version is complete; it may be truncated or edited by hand.

        Args:
            manifest: its content.
            uri: of its file.

        Raises:
            UserError: a key is missing or has another type, in one sentence.
        """
        try:
            self.manifest.model_validate(dict(manifest))
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            key, reason = ".".join(str(part) for part in first["loc"]), first["msg"].rstrip(".")
            raise UserError(
                f"{uri!r} is damaged (key {key!r}: {reason}): restore it, or remove it and run the job that wrote it "
                f"again, which repeats no finished work."
            ) from error

    def content_of(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Return a manifest of this kind without provenance and file sizes: equal rows give equal values."""
        shards = [{name: value for name, value in shard.items() if name != "bytes"} for shard in manifest["shards"]]
        content = {name: value for name, value in manifest.items() if name not in self.provenance_keys}
        return {**content, "shards": shards}


def read_manifest(table_uri: str) -> dict[str, Any] | None:
    """Read the current manifest of a table; None if none was published.

    Raises:
        UserError: it is not JSON.
    """
    try:
        manifest = storage.read_json(storage.join(table_uri, MANIFEST_NAME))
    except (FileNotFoundError, NotADirectoryError):
        # No `storage.exists` first: it would report a disk that does not answer as a missing file.
        return None
    return manifest if isinstance(manifest, dict) else {}


def kind_of(table_uri: str) -> str | None:
    """Return the kind of the table that is published at a URI; None if there is no table."""
    kind = (read_manifest(table_uri) or {}).get("kind")
    return kind if isinstance(kind, str) else None


def read_valid_manifest(
    table_uri: str, kinds: Sequence[TableKind], what: str = "Table"
) -> tuple[dict[str, Any], TableKind]:
    """Read and validate the manifest of a published table of one of these kinds.

    Args:
        table_uri: absolute URI of the folder.
        kinds: the kinds that the caller reads.
        what: names the table in error messages.

    Raises:
        UserError: there is no folder or no published table, its kind or schema version is another one, or the manifest
            is damaged.
    """
    storage.require_readable(table_uri, what)
    manifest = read_manifest(table_uri)
    jobs = " or ".join(kind.written_by for kind in kinds)
    if manifest is None:
        raise UserError(f"{what} {table_uri!r} holds no {MANIFEST_NAME}: run {jobs} first, until it has finished.")
    found, version = manifest.get("kind"), manifest.get("schema_version")
    kind = next((kind for kind in kinds if kind.name == found), None)
    if kind is None:
        names = " or ".join(kind.name for kind in kinds)
        holds = f"holds a table of {found}" if isinstance(found, str) else f"holds a {MANIFEST_NAME} that is no table's"
        raise UserError(f"{what} {table_uri!r} {holds}, but a table of {names} is needed: make one with {jobs}.")
    if version != kind.schema_version:
        raise UserError(
            f"{what} {table_uri!r} has schema version {version!r}, but this release reads {kind.schema_version}: run "
            f"{kind.written_by} again into a new folder."
        )
    kind.validate(manifest, storage.join(table_uri, MANIFEST_NAME))
    return manifest, kind


def referenced_files(manifest: Mapping[str, Any]) -> set[str]:
    """Return the paths, in the table, of the shards and index files that a manifest names."""
    shards = {shard["name"] for shard in manifest.get("shards", [])}
    return shards | set(manifest.get("index", {}).get("files", []))


def replace_manifest(table_uri: str, manifest: Mapping[str, Any], require_lease: Callable[[], None]) -> None:
    """Make a manifest the current one; an identical file is left unchanged.

    A driver that is suspended after it checked the lease cannot replace what another run has published meanwhile.

    Args:
        table_uri: folder of the table.
        manifest: its content; all files that it names exist.
        require_lease: raises unless this run may still write.
    """
    uri = storage.join(table_uri, MANIFEST_NAME)
    data = (json.dumps(manifest, indent=2) + "\n").encode()
    while True:
        before, version = storage.read_versioned(uri)
        if before == data:
            return
        if before is not None:
            # Written even if it exists: its modification time tells when this manifest was replaced.
            name = f"{short_hash(before)}.json"
            storage.write_bytes(storage.join(table_uri, HISTORY, name), before)
        require_lease()
        if storage.replace_if_unchanged(uri, data, version):
            return
