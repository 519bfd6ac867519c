"""Files of jobs on local disk: one folder per job, named by its identifier and removed with the job."""

import shutil
from collections.abc import Collection
from pathlib import Path

from serve.protocol import Variant
from videogen import storage

FILE_NAMES: dict[Variant, str] = {"video": "video.mp4", "reference": "reference.png"}
MEDIA_TYPES: dict[Variant, str] = {"video": "video/mp4", "reference": "image/png"}
_INPUT = "input.png"


class Artifacts:
    """Files of all jobs of one service."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def path(self, job_id: str, variant: Variant) -> Path:
        """Return the path of a variant, whether or not it exists yet."""
        return self._root / job_id / FILE_NAMES[variant]

    def write(self, job_id: str, variant: Variant, content: bytes) -> None:
        """Write a variant atomically and durably."""
        storage.write_bytes(str(self.path(job_id, variant)), content)

    def available(self, job_id: str) -> tuple[Variant, ...]:
        """Return the variants that exist."""
        return tuple(variant for variant in FILE_NAMES if self.path(job_id, variant).is_file())

    def write_input(self, job_id: str, png: bytes) -> None:
        """Store the uploaded reference image, so that the job can run after a restart."""
        storage.write_bytes(str(self._root / job_id / _INPUT), png)

    def read_input(self, job_id: str) -> bytes | None:
        """Return the uploaded reference image, or None."""
        path = self._root / job_id / _INPUT
        return path.read_bytes() if path.is_file() else None

    def remove(self, job_id: str) -> None:
        """Remove all files of a job."""
        shutil.rmtree(self._root / job_id, ignore_errors=True)

    def keep_only(self, job_ids: Collection[str]) -> None:
        """Remove the folders of all other jobs, which a crash during a deletion may leave behind."""
        for folder in self._root.iterdir():
            if folder.name not in job_ids:
                self.remove(folder.name)
