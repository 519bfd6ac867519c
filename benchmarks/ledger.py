"""Cost of a table's ledger as the number of items grows. Time should grow linearly, memory should stay flat.

    python benchmarks/ledger.py --items 10000 100000 1000000

Each phase runs in a separate process, so that its peak memory is measured alone. The ledger's database caches its reads
up to a limit (--memory-mb): below the limit memory grows with the table. The phases of workers, writing and packing
batches of 32 items with one small row each, are not part of the ledger and are shown beside it.
"""

import argparse
import hashlib
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa

from tools.result_files import add_save_option, report
from videogen.cli import parser, run_job
from videogen.data.tables import MEMORY_MB, Ledger, Outcome, PartRecord, pack_shard, write_part
from videogen.errors import UserError

ITEMS_PER_UNIT = 32
_LEAST_MEMORY_MB = 16
SHARD_BYTES = 64 << 20
IDENTITY = "benchmark"
SCHEMA = pa.schema([("item_id", pa.string()), ("score", pa.float32()), ("latents", pa.large_binary())])


def main(argv: Sequence[str] | None = None) -> None:
    """Run all phases for each number of items."""
    options = _options(argv)
    rows = []
    for num_items in options.items:
        with tempfile.TemporaryDirectory(prefix="videogen-benchmark-", dir=options.folder) as folder:
            table = str(Path(folder, "table"))
            rows += [_measure(name, table, num_items, options.memory_mb) for name in PHASES]
    report("ledger", {"memory_limit_mb": options.memory_mb, "phases": rows}, options)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    arguments = parser(__doc__)
    arguments.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    arguments.add_argument("--memory-mb", type=int, default=MEMORY_MB, help="limit of the database, 16 or more")
    arguments.add_argument("--folder", help="folder of the tables; default: the folder of temporary files")
    add_save_option(arguments)
    return arguments


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    options = build_parser().parse_args(argv)
    if options.memory_mb < _LEAST_MEMORY_MB:
        raise UserError(f"--memory-mb is {options.memory_mb}, but a database needs {_LEAST_MEMORY_MB} or more.")
    return options


def _measure(name: str, uri: str, num_items: int, memory_mb: int) -> dict[str, Any]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        seconds, cpu_s, peak_mb = pool.submit(_phase, name, uri, num_items, memory_mb).result()
    print(f"{num_items} items, {name}: {seconds:.1f} s, {cpu_s:.1f} s of CPU, {peak_mb:.0f} MB", file=sys.stderr)
    measured = {"wall_s": round(seconds, 1), "cpu_s": round(cpu_s, 1), "peak_mb": round(peak_mb)}
    return {"items": num_items, "phase": name, **measured}


def _phase(name: str, uri: str, num_items: int, memory_mb: int) -> tuple[float, float, float]:
    """Run one phase in this process; return wall seconds, CPU seconds and peak memory in MB."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    PHASES[name](Ledger(uri, IDENTITY, memory_mb=memory_mb), num_items)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu_s, after.ru_maxrss / 1024


# --- what a pipeline does ----------------------------------------------------------------------------------------


def _plan(ledger: Ledger, num_items: int) -> None:
    """Plan a new table: all items are pending."""
    with ledger:
        assert sum(batch.num_rows for batch in ledger.pending(_planned(num_items))) == num_items


def _work(ledger: Ledger, num_items: int) -> None:
    """Commit every batch, as workers do."""
    for start in range(0, num_items, ITEMS_PER_UNIT):
        _commit(ledger.uri, range(start, min(num_items, start + ITEMS_PER_UNIT)))


def _footers(ledger: Ledger, num_items: int) -> None:
    """Resume a run whose driver was killed before it wrote a segment."""
    with ledger:
        num_missing = sum(batch.num_rows for batch in ledger.missing(_planned(num_items)))
        assert num_missing == 0, ledger.counts()


def _segments(ledger: Ledger, num_items: int) -> None:
    """Resume a run whose driver had written all segments."""
    _footers(ledger, num_items)


def _pack(ledger: Ledger, num_items: int) -> None:
    """Pack all parts, as workers do."""
    with ledger:
        ledger.plan(_planned(num_items))
        for pack in ledger.plan_packs(SHARD_BYTES):
            pack_shard(ledger.uri, pack)


def _publish(ledger: Ledger, num_items: int) -> None:
    """Write the index, publish, and remove the parts."""
    with ledger:
        ledger.plan(_planned(num_items))
        assert not ledger.plan_packs(SHARD_BYTES)
        ledger.publish({"kind": "benchmark"}, ledger.index_rows(columns=["score"]))


def _again(ledger: Ledger, num_items: int) -> None:
    """Run again when nothing is pending."""
    _footers(ledger, num_items)


PHASES = {
    "plan": _plan,
    "workers: write": _work,
    "resume from footers": _footers,
    "resume from segments": _segments,
    "workers: pack": _pack,
    "publish": _publish,
    "run again": _again,
}


def _planned(num_items: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, num_items, 10_000):
        numbers = range(start, min(num_items, start + 10_000))
        uris = [f"s3://bucket/videos/{number:09}.mp4" for number in numbers]
        yield pa.record_batch({"item_id": [_item_id(number) for number in numbers], "source": uris})


def _item_id(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:20]


def _commit(uri: str, numbers: range) -> PartRecord:
    ids = [_item_id(number) for number in numbers]
    good = [item for item, number in zip(ids, numbers, strict=True) if number % 50]
    outcomes = [
        Outcome(item, "ok")
        if number % 50
        else Outcome(item, "failed", uri=item, stage="probe", error="no video stream")
        for item, number in zip(ids, numbers, strict=True)
    ]
    columns = [
        pa.array(good),
        pa.array([len(item) / 7 for item in good], pa.float32()),
        pa.array([b"\0" * 256] * len(good), pa.large_binary()),
    ]
    rows = pa.table(columns, schema=SCHEMA)
    unit_id = hashlib.sha256("".join(ids).encode()).hexdigest()[:20]
    return write_part(uri, unit_id, rows, outcomes, IDENTITY, {"seconds": 0.5 + numbers.start % 7})


if __name__ == "__main__":
    sys.exit(run_job(main))
