"""The ledger: items are done once, whoever writes what twice, and readers see whole tables only."""

import json
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from videogen import storage
from videogen.data.tables import (
    Lease,
    Ledger,
    Outcome,
    PartRecord,
    pack_shard,
    read_index,
    read_part_record,
    write_part,
)
from videogen.data.tables import ledger as ledger_module
from videogen.data.tables.files import ForeignFileError
from videogen.errors import UserError

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
    """Do what is left to do of a plan, and publish."""
    for batch in ledger.pending(planned(numbers)):
        left = batch["n"].to_pylist()
        for start in range(0, len(left), per_unit):
            ledger.note([work(uri, left[start : start + per_unit])])
    return publish(uri, ledger, shard_bytes)


def publish(uri: str, ledger: Ledger, shard_bytes: int = 9000) -> dict:
    for pack in ledger.plan_packs(shard_bytes):
        pack_shard(uri, pack)
    return ledger.publish({"kind": "test"}, ledger.locate(columns=["value"]))


def run(uri: str, numbers: Sequence[int], **options) -> dict:
    with Lease(uri) as lease, Ledger(uri, IDENTITY, lease) as ledger:
        return finish(uri, numbers, ledger, **options)


def read(uri: str, manifest: dict) -> list[tuple]:
    """Return the rows of a table as its readers find them: through the index, in the shards."""
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


# --- the whole way -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["local", "s3"])
def test_a_run_leaves_every_row_once_in_planned_order_and_nothing_else(where, tmp_path, request):
    uri = str(tmp_path / "table") if where == "local" else request.getfixturevalue("s3")
    numbers = random.Random(0).sample(range(200), 40)
    manifest = run(uri, numbers)
    assert read(uri, manifest) == expected(numbers)
    assert storage.read_json(storage.join(uri, "manifest.json")) == manifest
    counts = manifest["counts"]
    assert counts["planned"] == 40 == counts["ok"] + counts["filtered"] + counts["failed"]
    assert counts["rows"] == len(expected(numbers))
    assert len(manifest["shards"]) > 1
    errors = read_table(storage.join(uri, "errors.parquet")).to_pylist()
    assert [row["item_id"] for row in errors] == [f"i{n:03}" for n in numbers if n % 10 == 3]
    first = {"uri": f"{errors[0]['item_id']}.mp4", "stage": "probe", "error": "broken", "attempts": 1}
    assert errors[0] == {"item_id": errors[0]["item_id"], **first, "log_tail": "moov"}
    assert files(uri, "parts") == []
    assert not [name for name in storage.list_files(uri) if "partial" in name]


def test_running_again_changes_nothing(tmp_path):
    uri = str(tmp_path)
    run(uri, range(30))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    with Ledger(uri, IDENTITY) as ledger:
        assert list(ledger.pending(planned(range(30)))) == []
        publish(uri, ledger)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before


def test_added_items_alone_are_pending_and_published_shards_stay(tmp_path):
    uri = str(tmp_path)
    first = run(uri, range(20))
    with Ledger(uri, IDENTITY) as ledger:
        pending = [n for batch in ledger.pending(planned(range(30))) for n in batch["n"].to_pylist()]
        assert pending == list(range(20, 30))
        second = finish(uri, range(30), ledger)
    assert read(uri, second) == expected(range(30))
    assert {shard["name"] for shard in first["shards"]} <= {shard["name"] for shard in second["shards"]}


def test_items_that_are_no_longer_planned_are_not_in_the_table_but_still_known(tmp_path):
    uri = str(tmp_path)
    run(uri, range(20))
    assert read(uri, run(uri, range(5, 10))) == expected(range(5, 10))
    with Ledger(uri, IDENTITY) as ledger:
        assert list(ledger.pending(planned(range(20)))) == []


def test_what_was_done_under_another_identity_is_not_done(tmp_path):
    uri = str(tmp_path)
    run(uri, range(10))
    with Ledger(uri, "other") as ledger:
        assert sum(batch.num_rows for batch in ledger.pending(planned(range(10)))) == 10
    with Ledger(uri, IDENTITY) as ledger, pytest.raises(ValueError, match="identity other"):
        ledger.note([work(uri, [1], identity="other")])


def test_the_columns_of_planned_items_come_back_as_they_were(tmp_path):
    schema = pa.schema([("item_id", pa.string()), ("frames", pa.list_(pa.int32())), ("raw", pa.large_binary())])
    rows = [{"item_id": f"i{n:03}", "frames": [n, n + 1], "raw": bytes([n])} for n in range(9)]
    table = pa.Table.from_pylist(rows, schema)
    with Ledger(str(tmp_path), IDENTITY) as ledger:
        ledger.note([work(ledger.uri, [2, 3])])
        pending = pa.Table.from_batches(ledger.pending(table.to_batches(max_chunksize=2)))
    assert pending.schema == schema
    assert pending.to_pylist() == [row for n, row in enumerate(rows) if n not in (2, 3)]


# --- every item once ---------------------------------------------------------------------------------------------


def test_an_item_without_outcome_stops_publishing_and_is_named(tmp_path):
    with Ledger(str(tmp_path), IDENTITY) as ledger:
        ledger.plan(planned(range(6)))
        ledger.note([work(ledger.uri, [0, 1, 2, 3, 5])])
        assert [batch["item_id"].to_pylist() for batch in ledger.missing()] == [["i004"]]
        ledger.plan_packs(1000)
        with pytest.raises(RuntimeError, match=r"1 of the 6 planned items.*i004"):
            ledger.publish({}, [])
    assert not (tmp_path / "manifest.json").exists()


def test_an_item_that_is_planned_twice_is_refused(tmp_path):
    with Ledger(str(tmp_path), IDENTITY) as ledger, pytest.raises(UserError, match="'i005' is planned 2 times"):
        ledger.plan(planned([1, 5, 6, 5]))


def test_an_index_that_lost_rows_is_not_published(tmp_path):
    with Ledger(str(tmp_path), IDENTITY) as ledger:
        ledger.plan(planned(range(3)))
        ledger.note([work(ledger.uri, range(3))])
        for pack in ledger.plan_packs(1000):
            pack_shard(ledger.uri, pack)
        with pytest.raises(RuntimeError, match="has 3 rows, not 6"):
            ledger.publish({}, [batch.slice(0, 3) for batch in ledger.locate()])
    assert not (tmp_path / "manifest.json").exists()


def test_what_is_not_packed_is_not_published(tmp_path):
    with Ledger(str(tmp_path), IDENTITY) as ledger:
        ledger.plan(planned(range(3)))
        ledger.note([work(ledger.uri, range(3))])
        with pytest.raises(RuntimeError, match="plan_packs comes before"):
            ledger.locate()
        ledger.plan_packs(1000)
        with pytest.raises(RuntimeError, match="not packed yet"):
            ledger.locate()


def test_duplicates_from_a_worker_that_outlived_its_driver_are_harmless(tmp_path):
    uri = str(tmp_path)
    numbers = list(range(12))
    work(uri, [7, 5, 6])  # of an earlier driver, which had grouped the items differently
    work(uri, [0, 1])
    manifest = run(uri, numbers)
    assert read(uri, manifest) == expected(numbers)
    # And after publication: late parts of all kinds change nothing that readers see.
    work(uri, [5, 6, 7, 8])
    work(uri, [0, 1, 2], broken=True)
    again = run(uri, numbers)
    assert again == manifest
    assert files(uri, "parts") == []


def test_a_late_failure_never_replaces_rows(tmp_path):
    good = work(str(tmp_path), [1, 2])
    bad = work(str(tmp_path), [1, 2], broken=True)
    assert good.unit_id == bad.unit_id
    with Ledger(str(tmp_path), IDENTITY) as ledger:
        ledger.plan(planned([1, 2]))
        assert ledger.counts() == {"planned": 2, "ok": 2, "filtered": 0, "failed": 0}


def test_failed_items_are_tried_again_when_asked_for_and_the_better_outcome_counts(tmp_path):
    uri = str(tmp_path)
    with Ledger(uri, IDENTITY) as ledger:
        ledger.plan(planned(range(5)))
        ledger.note([work(uri, range(5), broken=True)])
        publish(uri, ledger)
    with Ledger(uri, IDENTITY) as ledger:
        assert list(ledger.pending(planned(range(5)))) == []
        (left,) = ledger.pending(retry_failed=True)
        assert left["n"].to_pylist() == list(range(5))
        manifest = finish_retry(uri, ledger)
    assert read(uri, manifest) == expected(range(5))
    assert manifest["counts"] == {"planned": 5, "ok": 3, "filtered": 1, "failed": 1, "rows": 6}


def finish_retry(uri: str, ledger: Ledger) -> dict:
    """Try the same unit again, so that its name is the same; then forget that, as a killed driver would."""
    work(uri, range(5))
    with Ledger(uri, IDENTITY) as other:
        other.plan(planned(range(5)))
        return publish(uri, other)


def test_of_several_failures_the_last_attempt_is_told(tmp_path):
    empty = SCHEMA.empty_table()
    with Ledger(str(tmp_path), IDENTITY) as ledger:
        for attempts in (2, 3, 1):
            outcome = Outcome("i000", "failed", error=f"attempt {attempts}", attempts=attempts)
            ledger.note([write_part(ledger.uri, f"unit{attempts}", empty, [outcome], IDENTITY)])
        ledger.plan(planned([0]))
        (told,) = ledger.failures()
    assert told["error"].to_pylist() == ["attempt 3"]


def test_facts_of_units_are_summed_up(tmp_path):
    with Ledger(str(tmp_path), IDENTITY) as ledger:
        for n in range(5):
            ledger.note([work(ledger.uri, [n])])
        ledger.note([work(ledger.uri, [2])])
        assert ledger.facts() == {"s": 2.5}


# --- what is lost and what is not --------------------------------------------------------------------------------


def test_a_driver_that_noted_nothing_has_lost_nothing(tmp_path):
    uri = str(tmp_path)
    for n in range(0, 20, 4):
        work(uri, range(n, n + 4))
    with Ledger(uri, IDENTITY) as ledger:
        assert list(ledger.pending(planned(range(20)))) == []
    assert len(files(uri, "commits")) == 1


def test_segments_are_enough_so_a_resume_reads_no_footer(tmp_path):
    uri = str(tmp_path)
    for n in range(0, 20, 4):
        work(uri, range(n, n + 4))
    with Ledger(uri, IDENTITY):
        pass
    for part in (tmp_path / "parts").iterdir():
        part.write_bytes(b"")  # nobody looks
    with Ledger(uri, IDENTITY) as ledger:
        assert list(ledger.pending(planned(range(20)))) == []


def test_a_segment_is_written_every_so_many_items(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger_module, "ITEMS_PER_SEGMENT", 6)
    with Ledger(str(tmp_path), IDENTITY) as ledger:
        for n in range(0, 20, 4):
            ledger.note([work(ledger.uri, range(n, n + 4))])
        assert len(files(ledger.uri, "commits")) == 2
    assert len(files(ledger.uri, "commits")) == 3


def test_many_segments_are_merged_and_nothing_is_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger_module, "ITEMS_PER_SEGMENT", 1)
    monkeypatch.setattr(ledger_module, "_ROWS_PER_SEGMENT", 9)
    monkeypatch.setattr(ledger_module, "_SEGMENTS_AT_MOST", 4)
    uri = str(tmp_path)
    run(uri, range(30))
    assert len(files(uri, "commits")) == 4
    work(uri, [40, 41])
    with Ledger(uri, IDENTITY) as ledger:
        assert len(files(uri, "commits")) == 4  # now 5 were too many, so 4 again
        assert list(ledger.pending(planned([*range(30), 40, 41]))) == []
        assert ledger.counts()["failed"] == 3


def test_lost_segments_cost_work_but_no_row(tmp_path):
    uri = str(tmp_path)
    run(uri, range(20))
    storage.remove(storage.join(uri, "commits"))
    assert read(uri, run(uri, range(20))) == expected(range(20))


def test_items_whose_shard_is_lost_are_done_again(tmp_path):
    uri = str(tmp_path)
    manifest = run(uri, range(20))
    storage.remove(storage.join(uri, manifest["shards"][0]["name"]))
    with Ledger(uri, IDENTITY) as ledger:
        pending = [n for batch in ledger.pending(planned(range(20))) for n in batch["n"].to_pylist()]
        assert 0 < len(pending) < 20
        assert read(uri, finish(uri, range(20), ledger)) == expected(range(20))


def test_half_written_and_foreign_files_are_reported_and_not_trusted(tmp_path, caplog):
    uri = str(tmp_path)
    whole = Path(uri, "parts", f"{work(uri, [1, 2]).name}.parquet").read_bytes()
    pq.write_table(pa.table({"item_id": ["i001"]}), tmp_path / "parts" / "foreign.parquet")
    (tmp_path / "parts" / "empty.parquet").write_bytes(b"")
    (tmp_path / "parts" / "renamed.parquet").write_bytes(whole)
    half = work(uri, [5, 6])
    Path(uri, "parts", f"{half.name}.parquet").write_bytes(whole[: len(whole) // 2])
    for folder in ("commits", "shards"):
        storage.write_bytes(storage.join(uri, folder, f"{IDENTITY}-00.parquet"), whole[:-3])
    with caplog.at_level(logging.WARNING), Ledger(uri, IDENTITY) as ledger:
        pending = [n for batch in ledger.pending(planned([1, 2, 5, 6])) for n in batch["n"].to_pylist()]
    assert pending == [5, 6]
    ignored = [record.getMessage() for record in caplog.records if "is ignored" in record.getMessage()]
    assert len(ignored) == 6
    for name in ("foreign", "empty", "renamed", half.name):
        assert any(name in line for line in ignored)


@pytest.mark.parametrize("folder", ["parts", "shards", "commits", "manifest.json"])
def test_a_storage_that_does_not_answer_is_an_error_and_no_empty_table(folder, tmp_path):
    (tmp_path / folder).symlink_to(folder)  # to itself, so that whatever is asked of it fails
    with pytest.raises(OSError, match="symbolic links"):
        Ledger(str(tmp_path), IDENTITY).open()


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
        str(tmp_path / "again"), record.unit_id, pq.read_table(uri), record.outcomes, IDENTITY, record.facts,
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
        ledger.note([work(ledger.uri, range(n, n + 3)) for n in range(0, 30, 3)])
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
            ledger.note([work(uri, range(n, n + 4)) for n in range(0, 40, 4)[::order]])
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
        ledger.note([work(uri, range(n, n + 4)) for n in range(0, 40, 4)])
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


def test_packing_holds_a_row_group_in_memory_and_not_a_part(tmp_path):
    rows = pa.table(
        {"item_id": [f"i{n}" for n in range(64)], "latents": pa.array([os.urandom(1 << 20)] * 64, pa.large_binary())}
    )
    outcomes = [Outcome(f"i{n}", "ok") for n in range(64)]
    with Ledger(str(tmp_path), IDENTITY) as ledger:
        ledger.plan(rows.select(["item_id"]).to_batches())
        ledger.note([write_part(ledger.uri, "unit", rows, outcomes, IDENTITY, rows_per_group=2)])
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


def test_a_segment_that_could_not_be_written_is_written_later(tmp_path):
    with Ledger(str(tmp_path / "table"), IDENTITY) as ledger:
        ledger.note([work(ledger.uri, [1, 2])])
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
        ledger.note([work(uri, [1])])
        rows = pa.table({"item_id": ["i002"], "value": ["text"]})
        ledger.note([write_part(uri, "unit", rows, [Outcome("i002", "ok")], IDENTITY)])
        (pack,) = ledger.plan_packs(9000)
        with pytest.raises(RuntimeError, match="another schema"):
            pack_shard(uri, pack)
    assert not list((tmp_path / "shards").glob("*"))


# --- garbage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["local", "s3"])
def test_garbage_is_what_the_manifest_does_not_name_and_is_older_than_the_lease(where, tmp_path, request):
    uri = str(tmp_path / "table") if where == "local" else request.getfixturevalue("s3")
    run(uri, range(20))
    old = run(uri, range(10))
    for name in ("shards/old.parquet", "index/old.parquet", "parts/old.parquet", "commits/other-old.parquet"):
        storage.write_bytes(storage.join(uri, name), b"x")
    storage.write_bytes(storage.join(uri, "shards/.new.0.partial"), b"x")
    storage.write_bytes(storage.join(uri, "report/shards/mine.parquet"), b"x")
    work(uri, [50, 51])  # not planned, but good
    if where == "s3":
        import time

        time.sleep(1.1)  # times of objects are whole seconds
    with Lease(uri) as lease, Ledger(uri, IDENTITY, lease) as ledger:
        storage.write_bytes(storage.join(uri, "parts/young.parquet"), b"x")
        removed = {name.removeprefix(f"{uri}/") for name in ledger.collect_garbage()}
        assert not [name for name in ledger.collect_garbage() if "young" not in name]
    assert {"shards/old.parquet", "index/old.parquet", "parts/old.parquet", "commits/other-old.parquet"} < removed
    assert "shards/.new.0.partial" in removed
    assert not {name for name in removed if "mine" in name or "young" in name}
    assert read(uri, old) == expected(range(10))
    with Ledger(uri, IDENTITY) as ledger:
        assert list(ledger.pending(planned([50, 51]))) == []


def test_garbage_is_only_collected_under_a_lease(tmp_path):
    with Ledger(str(tmp_path), IDENTITY) as ledger, pytest.raises(RuntimeError, match="lease"):
        ledger.collect_garbage()


def test_readers_of_the_earlier_manifest_find_all_that_it_names(tmp_path):
    uri = str(tmp_path)
    first = run(uri, range(20))
    run(uri, range(5, 40))
    assert read(uri, first) == expected(range(20))


# --- kill -9 -----------------------------------------------------------------------------------------------------

CRASHES = '''
import gc, os, random, signal, sys

sys.path.insert(0, sys.argv[1])
from tests import test_tables_ledger as ledger_tests

table, seed, rounds = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
changes = ("open", "os.rename", "os.remove", "os.mkdir")


def die_at(countdown):
    """End this process without a word just before it changes the table for the n-th time."""

    def hook(event, arguments):
        nonlocal countdown
        if event not in changes or table not in str(arguments[0]):
            return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            return
        countdown -= 1
        if countdown < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


chance = random.Random(seed)
killed = 0
for _ in range(rounds):
    child = os.fork()
    if not child:
        die_at(chance.randrange(1, 55))
        ledger_tests.run(table, range(36), per_unit=chance.choice([2, 3]))
        os._exit(0)
    killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
print(killed)
'''


@pytest.mark.parametrize("seed", [1, 2])
def test_a_driver_killed_at_any_write_leaves_the_table_of_an_undisturbed_run(seed, tmp_path):
    uri = str(tmp_path / "table")
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", CRASHES, root, uri, seed, 6]
    done = subprocess.run([str(word) for word in command], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 2
    manifest = run(uri, range(36))
    undisturbed = run(str(tmp_path / "undisturbed"), range(36))
    assert read(uri, manifest) == read(str(tmp_path / "undisturbed"), undisturbed) == expected(range(36))
    assert manifest["counts"] == undisturbed["counts"]
    assert files(uri, "parts") == []
    assert not list(Path(uri).rglob("*.partial"))
    errors = [Path(folder, "errors.parquet").read_bytes() for folder in (uri, tmp_path / "undisturbed")]
    assert errors[0] == errors[1]


def test_a_killed_process_leaves_no_database_for_long(tmp_path, monkeypatch):
    script = "import sys, os, signal; from videogen.data.tables import Ledger; "
    script += "Ledger(sys.argv[1], 'abc').open(); os.kill(os.getpid(), signal.SIGKILL)"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "table"], env=environment, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob("videogen-ledger-*"))) == 1
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Ledger(str(tmp_path / "table"), IDENTITY):
        assert len(list(tmp_path.glob("videogen-ledger-*"))) == 1
    assert list(tmp_path.glob("videogen-ledger-*")) == []


def test_records_travel_as_json():
    record = PartRecord(
        "unit", IDENTITY, 1, 5, (Outcome("a", "ok", rows=1), Outcome("b", "failed", error="x")), {"s": 1.5}
    )
    assert PartRecord.from_json(json.dumps(json.loads(record.to_json()))) == record
