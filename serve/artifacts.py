"""Where finished files lie: one folder a job, named by its identifier, removed with the job."""

import shutil
from collections.abc import Collection
from pathlib import Path

from serve.protocol import Variant
from videogen import storage

FILE_NAMES: dict[Variant, str] = {"video": "video.mp4", "reference": "reference.png"}
MEDIA_TYPES: dict[Variant, str] = {"video": "video/mp4", "reference": "image/png"}
_INPUT = "input.png"


class Artifacts:
    """The files of all jobs of one service, on a local disk."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def path(self, job_id: str, variant: Variant) -> Path:
        """Return where a variant is, or will be."""
        return self._root / job_id / FILE_NAMES[variant]

    def write(self, job_id: str, variant: Variant, content: bytes) -> None:
        """Write a variant so that a reader sees all of it or nothing, and a crash loses nothing."""
        storage.write_bytes(str(self.path(job_id, variant)), content)

    def available(self, job_id: str) -> tuple[Variant, ...]:
        """Return the variants that can be fetched."""
        return tuple(variant for variant in FILE_NAMES if self.path(job_id, variant).is_file())

    def write_input(self, job_id: str, png: bytes) -> None:
        """Keep the uploaded reference image, so that the job can be run after a restart."""
        storage.write_bytes(str(self._root / job_id / _INPUT), png)

    def read_input(self, job_id: str) -> bytes | None:
        """Return the uploaded reference image, if there was one."""
        path = self._root / job_id / _INPUT
        return path.read_bytes() if path.is_file() else None

    def remove(self, job_id: str) -> None:
        """Remove all files of a job."""
        shutil.rmtree(self._root / job_id, ignore_errors=True)

    def keep_only(self, job_ids: Collection[str]) -> None:
        """Remove what a crash between two steps of a deletion may have left."""
        for folder in self._root.iterdir():
            if folder.name not in job_ids:
                self.remove(folder.name)
