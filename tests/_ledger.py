"""Small hand-made table, which the tests of ledger, parts and crashes plan, write, pack and read."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from videogen import storage
from videogen.data.tables import (
    Lease,
    Ledger,
    Outcome,
    PartRecord,
    pack_shard,
    read_index,
    write_part,
)

IDENTITY = "abc123"
SCHEMA = pa.schema([("item_id", pa.string()), ("value", pa.int32()), ("latents", pa.large_binary())])
ROWS_PER_GROUP = 4


def planned(numbers: Sequence[int], per_batch: int = 7) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(numbers), per_batch):
        part = list(numbers[start : start + per_batch])
        yield pa.record_batch({"item_id": [f"i{n:03}" for n in part], "n": pa.array(part, pa.int64())})


def work(uri: str, numbers: Sequence[int], *, identity: str = IDENTITY, broken: bool = False) -> PartRecord:
    """Commit a unit: item n has 1 + n % 3 rows, but those that end in 3 fail and those that end in 4 are filtered."""
    rows, outcomes = [], []
    for n in numbers:
        item = f"i{n:03}"
        if n % 10 == 3 or broken:
            outcomes.append(Outcome(item, "failed", uri=f"{item}.mp4", stage="probe", error="broken", log_tail="moov"))
        elif n % 10 == 4:
            outcomes.append(Outcome(item, "filtered", stage="windows", error="too short"))
        else:
            outcomes.append(Outcome(item, "ok"))
            rows += [
                {"item_id": item, "value": 100 * n + k, "latents": bytes([n % 256]) * 50} for k in range(1 + n % 3)
            ]
    table = pa.Table.from_pylist(rows, SCHEMA)
    return write_part(uri, "unit" + "x".join(map(str, numbers)), table, outcomes, identity, {"s": 0.5}, ROWS_PER_GROUP)


def finish(uri: str, numbers: Sequence[int], ledger: Ledger, shard_bytes: int = 9000, per_unit: int = 4) -> dict:
    """Process the pending batches of a plan, and publish."""
    for batch in ledger.pending(planned(numbers)):
        left = batch["n"].to_pylist()
        for start in range(0, len(left), per_unit):
            ledger.add([work(uri, left[start : start + per_unit])])
    return publish(uri, ledger, shard_bytes)


def publish(uri: str, ledger: Ledger, shard_bytes: int = 9000) -> dict:
    for pack in ledger.plan_packs(shard_bytes):
        pack_shard(uri, pack)
    return ledger.publish({"kind": "test"}, ledger.index_rows(columns=["value"]))


def run(uri: str, numbers: Sequence[int], **options) -> dict:
    with Lease(uri) as lease, Ledger(uri, IDENTITY, lease) as ledger:
        return finish(uri, numbers, ledger, **options)


def read(uri: str, manifest: dict) -> list[tuple]:
    """Return the rows of a table as readers find them, in the shards by way of the index."""
    shards = [read_table(storage.join(uri, shard["name"])) for shard in manifest["shards"]]
    for shard, told in zip(shards, manifest["shards"], strict=True):
        assert shard.num_rows == told["rows"]
    found = []
    for batch in read_index(uri, manifest):
        for entry in batch.to_pylist():
            row = shards[entry["shard"]].slice(entry["row"], 1).to_pylist()[0]
            assert (row["item_id"], row["value"]) == (entry["item_id"], entry["value"])
            found.append((entry["item_id"], entry["n"], row["value"], row["latents"]))
    return found


def read_table(uri: str) -> pa.Table:
    filesystem, path = storage.arrow_filesystem(uri)
    return pq.read_table(path, filesystem=filesystem)


def expected(numbers: Sequence[int]) -> list[tuple]:
    good = [n for n in numbers if n % 10 not in (3, 4)]
    return [(f"i{n:03}", n, 100 * n + k, bytes([n % 256]) * 50) for n in good for k in range(1 + n % 3)]


def files(uri: str, folder: str) -> list[str]:
    return [name.rsplit("/", 1)[-1] for name in storage.list_files(storage.join(uri, folder))]
