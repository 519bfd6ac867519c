"""Checks of an output folder before a run: it can be written, it lasts, and nothing in it would be lost."""

import json
from collections.abc import Mapping
from typing import Any

from videogen import storage
from videogen.data.tables import MANIFEST_NAME, TableKind, read_manifest, require_index
from videogen.errors import UserError

_SHIPPED_COPY = "_ray_pkg_"
"""How Ray begins the name of the folder into which it unpacks a job's `working_dir`."""


def require_output(uri: str, option: str = "--output") -> None:
    """Refuse an output that cannot be written or would not last; the first check of every job.

    Raises:
        UserError: the output is not usable.
    """
    require_lasting(uri, option)
    storage.require_writable(uri, option.removeprefix("--").capitalize())


def require_lasting(uri: str | None, option: str) -> None:
    """Refuse a path inside Ray's temporary copy of the checkout, which Ray removes.

    Raises:
        UserError: `uri` is such a path, as is every relative one under `ray job submit --runtime-env`.
    """
    if uri is None or storage.is_remote(uri):
        return
    if any(part.startswith(_SHIPPED_COPY) for part in storage.absolute(uri).split("/")):
        raise UserError(
            f"{option} {uri!r} lies in the temporary copy of the checkout that Ray has made for this job, and would be "
            f"lost with it: give an absolute path or an s3:// URI, e.g. {option} $PWD/{uri.rsplit('/', 1)[-1]}."
        )


def require_apart(source: str, output: str) -> None:
    """Refuse an output that is the input itself.

    Raises:
        UserError: both are the same folder.
    """
    if storage.absolute(source) == storage.absolute(output):
        raise UserError(f"Output {output!r} is the input itself: give another folder for the table.")


def require_kind(output: str, kind: TableKind) -> None:
    """Refuse a folder with a table of another kind or schema version, or with a damaged one.

    Raises:
        UserError: the folder is not usable.
    """
    manifest = read_manifest(output)
    if manifest is None:
        return
    found, version = manifest.get("kind"), manifest.get("schema_version")
    if not isinstance(found, str):
        raise UserError(
            f"Output {output!r} holds a {MANIFEST_NAME} that is not a table manifest: give another --output."
        )
    if found != kind.name:
        raise UserError(f"Output {output!r} holds a table of {found}, not of {kind.name}: give another --output.")
    if version != kind.schema_version:
        raise UserError(
            f"Output {output!r} holds {kind.name} of schema version {version!r}, but this release writes "
            f"{kind.schema_version}: give another --output, or remove the old table."
        )
    kind.validate(manifest, storage.join(output, MANIFEST_NAME))
    require_index(output, manifest)


def require_same(output: str, identity: str, settings: Mapping[str, Any], replace: bool) -> None:
    """Refuse to replace a table made with other settings, unless `replace` is set.

    Args:
        output: folder accepted by `require_kind`.
        identity: of the new table.
        settings: settings that determine the rows, as in the manifest.
        replace: whether the earlier table may be replaced.

    Raises:
        UserError: names the settings that differ.
    """
    manifest = read_manifest(output)
    if manifest is None or replace or manifest["identity"] == identity:
        return
    wanted, theirs = _flat(json.loads(json.dumps(settings))), _flat({name: manifest.get(name) for name in settings})
    names = [name for name in wanted if theirs.get(name) != wanted[name]]
    if names:
        there, asked = (", ".join(f"{name} {_said(of.get(name))}" for name in names) for of in (theirs, wanted))
        what = f"made with {there}, but {asked} is asked for"
    else:
        what = "made by another release, or with other weights"
    raise UserError(
        f"Output {output!r} holds a table {what}: give another --output, or --replace to rebuild it from all inputs."
    )


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten sections into one dictionary."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat


def _said(value: Any) -> str:
    """Format a setting for a message."""
    if isinstance(value, list):
        return "+".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)
