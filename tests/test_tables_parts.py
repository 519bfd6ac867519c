"""Parts, which workers commit, and the shards that they are packed into: bounded, deterministic, and whole."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests._ledger import (
    IDENTITY,
    ROWS_PER_GROUP,
    SCHEMA,
    expected,
    files,
    planned,
    publish,
    read,
    work,
)
from videogen.data.tables import (
    ForeignFileError,
    Ledger,
    Outcome,
    PartRecord,
    pack_shard,
    read_part_record,
    write_part,
)

# --- parts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcomes", "message"),
    [
        ([], "one outcome for each"),
        ([Outcome("a", "ok"), Outcome("a", "ok")], "one outcome for each"),
        ([Outcome("b", "ok"), Outcome("a", "ok")], "in this order"),
        ([Outcome("a", "ok")], "in this order"),
        ([Outcome("a", "ok"), Outcome("b", "failed")], "in this order"),
        ([Outcome("a", "ok", rows=1), Outcome("b", "ok")], "has 2 rows, not 1"),
    ],
)
def test_rows_and_outcomes_that_do_not_fit_are_refused(tmp_path, outcomes, message):
    rows = pa.table({"item_id": ["a", "a", "b"]})
    with pytest.raises(ValueError, match=message):
        write_part(str(tmp_path), "unit", rows, outcomes, IDENTITY)
    assert not list(tmp_path.iterdir())


def test_a_status_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="'done'"):
        Outcome("a", "done")


def test_a_part_tells_what_it_was_given_and_any_parquet_reader_opens_it(tmp_path):
    record = work(str(tmp_path), [1, 2, 3, 4, 5])
    uri = str(tmp_path / "parts" / f"{record.name}.parquet")
    assert read_part_record(uri) == record == PartRecord.from_json(record.to_json())
    assert [(outcome.status, outcome.rows) for outcome in record.outcomes] == [
        ("ok", 2), ("ok", 3), ("failed", 0), ("filtered", 0), ("ok", 3),
    ]  # fmt: skip
    metadata = pq.read_metadata(uri)
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [4, 4]
    columns = [metadata.row_group(0).column(place) for place in range(3)]
    assert [column.compression for column in columns] == ["ZSTD", "ZSTD", "UNCOMPRESSED"]
    assert pq.read_schema(uri).remove_metadata() == SCHEMA
    again = write_part(
        str(tmp_path / "again"), record.batch_id, pq.read_table(uri), record.outcomes, IDENTITY, record.metrics,
        rows_per_group=ROWS_PER_GROUP,
    )  # fmt: skip
    assert again == record
    assert Path(uri).read_bytes() == (tmp_path / "again" / "parts" / f"{again.name}.parquet").read_bytes()


def test_a_part_cut_anywhere_is_no_part(tmp_path):
    name = work(str(tmp_path), [1, 2]).name
    path = tmp_path / "parts" / f"{name}.parquet"
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 61), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ForeignFileError):
            read_part_record(str(path))


# --- packing -----------------------------------------------------------------------------------------------------


def test_packing_regroups_rows_so_that_a_row_is_found_by_division(tmp_path):
    with Ledger(str(tmp_path), IDENTITY) as ledger:
        ledger.plan(planned(range(30)))
        ledger.add([work(ledger.uri, range(n, n + 3)) for n in range(0, 30, 3)])
        (pack,) = ledger.plan_packs(1 << 30)
        shard = pack_shard(ledger.uri, pack)
    metadata = pq.read_metadata(tmp_path / shard.name)
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    assert set(sizes[:-1]) == {ROWS_PER_GROUP} == {shard.rows_per_group}
    assert sum(sizes) == shard.rows == len(expected(range(30)))
    parts = [pq.read_table(tmp_path / "parts" / f"{name}.parquet") for name in pack.parts]
    assert pq.read_table(tmp_path / shard.name).equals(pa.concat_tables(parts))


def test_shards_are_sized_by_bytes_and_depend_on_nothing_but_the_parts(tmp_path):
    names = []
    for order in (1, -1):
        uri = str(tmp_path / str(order))
        with Ledger(uri, IDENTITY) as ledger:
            ledger.plan(planned(range(40)))
            ledger.add([work(uri, range(n, n + 4)) for n in range(0, 40, 4)[::order]])
            packs = ledger.plan_packs(9000)
            for pack in packs[::order]:
                pack_shard(uri, pack)
            assert ledger.plan_packs(9000) == packs
        assert max(pack.num_bytes for pack in packs) <= 9000
        names.append({name: (Path(uri, "shards") / name).read_bytes() for name in files(uri, "shards")})
    assert names[0] == names[1]


def test_an_interrupted_packing_is_continued(tmp_path):
    uri = str(tmp_path)
    with Ledger(uri, IDENTITY) as ledger:
        ledger.plan(planned(range(40)))
        ledger.add([work(uri, range(n, n + 4)) for n in range(0, 40, 4)])
        packs = ledger.plan_packs(9000)
        done = pack_shard(uri, packs[1])
        before = (tmp_path / done.name).stat().st_mtime_ns
        assert pack_shard(uri, packs[1]) == done
    with Ledger(uri, IDENTITY) as ledger:
        ledger.plan(planned(range(40)))
        assert ledger.plan_packs(9000) == [packs[0], *packs[2:]]
        manifest = publish(uri, ledger)
    assert (tmp_path / done.name).stat().st_mtime_ns == before
    assert read(uri, manifest) == expected(range(40))


@pytest.mark.process
def test_packing_holds_a_row_group_in_memory_and_not_a_part(tmp_path):
    rows = pa.table(
        {"item_id": [f"i{n}" for n in range(64)], "latents": pa.array([os.urandom(1 << 20)] * 64, pa.large_binary())}
    )
    outcomes = [Outcome(f"i{n}", "ok") for n in range(64)]
    with Ledger(str(tmp_path), IDENTITY) as ledger:
        ledger.plan(rows.select(["item_id"]).to_batches())
        ledger.add([write_part(ledger.uri, "unit", rows, outcomes, IDENTITY, rows_per_group=2)])
        (pack,) = ledger.plan_packs(1 << 30)
    script = (
        "import pickle, resource, sys; from videogen.data.tables import pack_shard; import pyarrow.parquet\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "shard = pack_shard(sys.argv[1], pickle.load(sys.stdin.buffer))\n"
        "print(shard.rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, input=pickle.dumps(pack), capture_output=True, timeout=60)
    num_rows, growth_mb = map(int, done.stdout.split())
    assert num_rows == 64
    assert growth_mb < 40


def test_a_commit_file_that_could_not_be_written_is_written_later(tmp_path):
    with Ledger(str(tmp_path / "table"), IDENTITY) as ledger:
        ledger.add([work(ledger.uri, [1, 2])])
        commits = tmp_path / "table" / "commits"
        commits.write_text("a file where a folder should be")
        with pytest.raises(OSError, match="commits"):
            ledger.flush()
        commits.unlink()
    assert len(files(str(tmp_path / "table"), "commits")) == 1


def test_parts_of_different_schemas_are_not_packed_together(tmp_path):
    uri = str(tmp_path)
    with Ledger(uri, IDENTITY) as ledger:
        ledger.plan(planned([1, 2]))
        ledger.add([work(uri, [1])])
        rows = pa.table({"item_id": ["i002"], "value": ["text"]})
        ledger.add([write_part(uri, "unit", rows, [Outcome("i002", "ok")], IDENTITY)])
        (pack,) = ledger.plan_packs(9000)
        with pytest.raises(RuntimeError, match="another schema"):
            pack_shard(uri, pack)
    assert not list((tmp_path / "shards").glob("*"))


def test_records_travel_as_json():
    record = PartRecord(
        "unit", IDENTITY, 1, 5, (Outcome("a", "ok", rows=1), Outcome("b", "failed", error="x")), {"s": 1.5}
    )
    assert PartRecord.from_json(json.dumps(json.loads(record.to_json()))) == record
