"""The folder that an export writes: a record in it names every file before it is there, and nothing else is removed."""

import re
from collections.abc import Sequence

from videogen import storage
from videogen.errors import UserError

RECORD_NAME = ".videogen-export.json"
"""Names the files of the export that lies beside it."""

_PARTIAL = re.compile(r"(.*/)\.([^/]+)\.[0-9a-f]{32}\.partial")
"""What a process that was killed leaves of a file that it was writing, on a local disk."""


class ExportFolder:
    """A folder that holds nothing but one export.

    Args:
        output: the folder; an earlier export in it is removed, and nothing else ever is.
        described: names of the files that readers look at first; of an earlier export they go first.

    Raises:
        UserError: it holds files that no export has written, or cannot be written.
    """

    def __init__(self, output: str, described: Sequence[str]) -> None:
        storage.require_writable(output, "Output")
        self.uri = output
        self._names: list[str] = []
        earlier = self._recorded()
        ours = {storage.join(output, name) for name in (RECORD_NAME, *earlier)}
        found = storage.list_files(output)
        foreign = [uri for uri in found if uri not in ours and _PARTIAL.sub(r"\1\2", uri) not in ours]
        if foreign:
            raise UserError(
                f"Output {output!r} holds {foreign[0]!r}, which no export has written: give an empty folder."
            )
        first = [storage.join(output, name) for name in described]
        # The record goes last: while any file is there, it is named.
        record = storage.join(output, RECORD_NAME)
        for uri in sorted(set(found) - {record}, key=lambda uri: (uri not in first, uri)):
            storage.remove(uri)
        self._write_record()

    def add(self, name: str) -> str:
        """Return the URI of a file that is about to be written."""
        self._names.append(name)
        self._write_record()
        return storage.join(self.uri, name)

    def _recorded(self) -> list[str]:
        """Return the names that an earlier export may have written."""
        record = storage.join(self.uri, RECORD_NAME)
        if not storage.exists(record):
            return []
        content = storage.read_json(record)
        names = content.get("files") if isinstance(content, dict) else None
        # Without a list nothing is known to be ours.
        return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []

    def _write_record(self) -> None:
        record = {"written_by": "jobs/export_table.py", "files": self._names}
        storage.write_json(storage.join(self.uri, RECORD_NAME), record)
