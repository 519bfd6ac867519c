"""Demonstration corpus, written with a progress display."""

import contextlib
import threading
from collections.abc import Iterator

from pipelines.cluster.progress import Progress, Task
from videogen import storage
from videogen.data.synthetic import CorpusSize, camera_clips, make_corpus
from videogen.data.video import SUFFIXES
from videogen.stages import CascadeConfig

_LOOK_EVERY_S = 1.0


def make_demonstration_corpus(
    uri: str, config: CascadeConfig, progress: Progress, size: CorpusSize | None = None, seed: int = 0
) -> dict[str, int]:
    """Write the corpus with `make_corpus` and show the number of finished videos."""
    size = size or CorpusSize()
    total = size.captioned + size.held_out + len(camera_clips())
    with progress.task("corpora", total=total, unit="videos") as task:
        with _watched(uri, task):
            counts = make_corpus(uri, config, size, seed)
        task.update(completed=total)
    return counts


@contextlib.contextmanager
def _watched(uri: str, task: Task) -> Iterator[None]:
    """Poll the number of files at `uri`; a video appears when it is complete."""
    ended = threading.Event()

    def watch() -> None:
        while True:
            with contextlib.suppress(OSError):  # the writer reports storage errors better
                task.update(completed=min(task.total, len(storage.list_files(uri, SUFFIXES))))
            if ended.wait(_LOOK_EVERY_S):
                return

    watcher = threading.Thread(target=watch, name="corpus-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
