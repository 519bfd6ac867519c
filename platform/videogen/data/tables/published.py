"""What readers see of a table: its manifest, replaced in one step by whoever holds the lease, and earlier manifests.

A manifest that is replaced is kept in `history/`: by these copies `vacuum` knows what readers of an earlier one read.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from videogen import storage
from videogen.data.tables import swap
from videogen.data.tables.files import HISTORY, MANIFEST_NAME


def read_manifest(table_uri: str) -> dict[str, Any] | None:
    """Return the manifest that readers of a table see now, or None if none was published yet.

    Raises:
        UserError: it is not JSON.
    """
    try:
        manifest = storage.read_json(storage.join(table_uri, MANIFEST_NAME))
    except (FileNotFoundError, NotADirectoryError):
        # Not `storage.exists` before: to that, a disk that does not answer is one without a table.
        return None
    return manifest if isinstance(manifest, dict) else {}


def content_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a manifest says of its table's content: two runs that make the same rows say the same.

    Left out is how they came about: seconds that were measured, and versions of decoders that were there.
    """
    shards = [{name: value for name, value in shard.items() if name != "bytes"} for shard in manifest["shards"]]
    about = {name: value for name, value in manifest.items() if name not in ("facts", "decoders")}
    return {**about, "shards": shards}


def replace(table_uri: str, manifest: Mapping[str, Any], require_lease: Callable[[], None]) -> None:
    """Make readers see a manifest; a file that says the same already is left alone.

    A driver that stood still after it looked at the lease replaces nothing that another has published meanwhile.

    Args:
        table_uri: folder of the table.
        manifest: what to say; all that it names is there.
        require_lease: raises unless this run may still write.
    """
    uri = storage.join(table_uri, MANIFEST_NAME)
    data = (json.dumps(manifest, indent=2) + "\n").encode()
    while True:
        before, mark = swap.read(uri)
        if before == data:
            return
        if before is not None:
            # Written again if it is there: its time says until when this manifest was the one that counted.
            name = f"{hashlib.sha256(before).hexdigest()[:20]}.json"
            storage.write_bytes(storage.join(table_uri, HISTORY, name), before)
        require_lease()
        if swap.swap(uri, data, mark):
            return


def named_files(manifest: Mapping[str, Any]) -> set[str]:
    """Return the paths, in the table, of the shards and index files that a manifest names."""
    shards = {shard["name"] for shard in manifest.get("shards", [])}
    return shards | set(manifest.get("index", {}).get("files", []))
