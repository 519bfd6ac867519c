"""What it costs to list a corpus as it grows: time should be near linear, memory flat.

    python benchmarks/listing.py --files 100 10000 1000000

The corpus is a folder of empty files, a thousand in each of its folders; or a manifest in parquet that names as many
videos, with their versions, so that nothing but the manifest is read. What is timed is what `jobs/ingest.py` begins
with: opening the source and going through all of its videos, in a process of its own, so that its peak of memory is its
own. Files are in the operating system's caches. S3 is not among them: there a thousand names come a request, and what
that takes is the service's affair.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from videogen.cli import parser, run_job
from videogen.data.sources import open_source

_A_FOLDER = 1000


def main(argv: Sequence[str] | None = None) -> None:
    """List corpora of each size and print a Markdown table."""
    options = _options(argv)
    print("Wall seconds (CPU seconds, peak MB):\n\n| videos | " + " | ".join(_MAKERS) + " |")
    print("|---" * (len(_MAKERS) + 1) + "|")
    for number in options.files:
        cells = []
        for make in _MAKERS.values():
            with tempfile.TemporaryDirectory(prefix="videogen-benchmark-", dir=options.folder) as folder:
                cells.append(_in_a_process(make(Path(folder), number), number))
        print(f"| {number:,} | " + " | ".join(cells) + " |", flush=True)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--files", type=int, nargs="+", default=[100, 10_000, 1_000_000])
    arguments.add_argument("--folder", help="where the corpora are made for the time being")
    return arguments.parse_args(argv)


def _make_folder(root: Path, number: int) -> str:
    for start in range(0, number, _A_FOLDER):
        folder = root / f"{start // _A_FOLDER:05}"
        folder.mkdir()
        for name in range(start, min(number, start + _A_FOLDER)):
            (folder / f"{name:09}.mp4").touch()
    return str(root)


def _make_manifest(root: Path, number: int) -> str:
    path = root / "videos.parquet"
    schema = pa.schema([("video", pa.string()), ("version", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, number, 100_000):
            names = range(start, min(number, start + 100_000))
            columns = [[f"s3://bucket/videos/{name:09}.mp4" for name in names], ["1"] * len(names)]
            writer.write_table(pa.table(columns, schema=schema))
    return str(path)


_MAKERS = {"folder": _make_folder, "manifest": _make_manifest}


def _in_a_process(uri: str, number: int) -> str:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        seconds, cpu_s, peak_mb = pool.submit(_list, uri, number).result()
    return f"{seconds:.2f} ({cpu_s:.2f}, {peak_mb:.0f})"


def _list(uri: str, number: int) -> tuple[float, float, float]:
    started, before = time.perf_counter(), time.process_time()
    found = sum(len(batch) for batch in open_source(uri).batches())
    if found != number:
        raise RuntimeError(f"{found} of {number} videos were found in {uri}")
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return time.perf_counter() - started, time.process_time() - before, peak_mb


if __name__ == "__main__":
    sys.exit(run_job(main))
