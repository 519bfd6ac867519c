"""Cost of listing a corpus as it grows. Time should grow linearly, memory should stay flat.

    python benchmarks/listing.py --files 100 10000 1000000

The corpus is a folder of empty files, a thousand in each sub-folder, or a parquet manifest that names as many videos
with their versions, so that only the manifest is read. The benchmark opens the source and reads all of its videos, as
`jobs/ingest.py` does first. Each measurement runs in a separate process, so that its peak memory is
measured alone. Files are in the operating system's caches. S3 is not measured: there a request returns a thousand
names, and the service determines its time.
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

from tools.result_files import add_save_option, report
from videogen.cli import parser, run_job
from videogen.data.sources import open_source

_A_FOLDER = 1000


def main(argv: Sequence[str] | None = None) -> None:
    """List corpora of each size."""
    options = build_parser().parse_args(argv)
    rows = []
    for number in options.files:
        for source, make in _MAKERS.items():
            with tempfile.TemporaryDirectory(prefix="videogen-benchmark-", dir=options.folder) as folder:
                measured = _in_a_process(make(Path(folder), number), number)
                rows.append({"videos": number, "source": source, **measured})
    report("listing", {"sources": rows}, options)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    arguments = parser(__doc__)
    arguments.add_argument("--files", type=int, nargs="+", default=[100, 10_000, 1_000_000])
    arguments.add_argument("--folder", help="folder of the corpora; default: the folder of temporary files")
    add_save_option(arguments)
    return arguments


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


def _in_a_process(uri: str, number: int) -> dict[str, float]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        seconds, cpu_s, peak_mb = pool.submit(_list, uri, number).result()
    return {"wall_s": round(seconds, 2), "cpu_s": round(cpu_s, 2), "peak_mb": round(peak_mb)}


def _list(uri: str, number: int) -> tuple[float, float, float]:
    started, before = time.perf_counter(), time.process_time()
    found = sum(len(batch) for batch in open_source(uri).batches())
    if found != number:
        raise RuntimeError(f"{found} of {number} videos were found in {uri}")
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return time.perf_counter() - started, time.process_time() - before, peak_mb


if __name__ == "__main__":
    sys.exit(run_job(main))
