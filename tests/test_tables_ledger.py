"""The ledger: items are done once, whoever writes what twice, and readers see whole tables only."""

import logging
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests._ledger import IDENTITY, SCHEMA, expected, files, finish, planned, publish, read, read_table, run, work
from tests.conftest import LOCAL_AND_S3
from videogen import storage
from videogen.data.tables import (
    Ledger,
    Outcome,
    commit_log,
    pack_shard,
    write_part,
)
from videogen.errors import UserError

# --- the whole way -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", LOCAL_AND_S3)
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
        ledger.add([work(uri, [1], identity="other")])


def test_the_columns_of_planned_items_come_back_as_they_were(tmp_path):
    schema = pa.schema([("item_id", pa.string()), ("frames", pa.list_(pa.int32())), ("raw", pa.large_binary())])
    rows = [{"item_id": f"i{n:03}", "frames": [n, n + 1], "raw": bytes([n])} for n in range(9)]
    table = pa.Table.from_pylist(rows, schema)
    with Ledger(str(tmp_path), IDENTITY) as ledger:
        ledger.add([work(ledger.uri, [2, 3])])
        pending = pa.Table.from_batches(ledger.pending(table.to_batches(max_chunksize=2)))
    assert pending.schema == schema
    assert pending.to_pylist() == [row for n, row in enumerate(rows) if n not in (2, 3)]


# --- every item once ---------------------------------------------------------------------------------------------


def test_an_item_without_outcome_stops_publishing_and_is_named(tmp_path):
    with Ledger(str(tmp_path), IDENTITY) as ledger:
        ledger.plan(planned(range(6)))
        ledger.add([work(ledger.uri, [0, 1, 2, 3, 5])])
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
        ledger.add([work(ledger.uri, range(3))])
        for pack in ledger.plan_packs(1000):
            pack_shard(ledger.uri, pack)
        with pytest.raises(RuntimeError, match="has 3 rows, not 6"):
            ledger.publish({}, [batch.slice(0, 3) for batch in ledger.index_rows()])
    assert not (tmp_path / "manifest.json").exists()


def test_what_is_not_packed_is_not_published(tmp_path):
    with Ledger(str(tmp_path), IDENTITY) as ledger:
        ledger.plan(planned(range(3)))
        ledger.add([work(ledger.uri, range(3))])
        with pytest.raises(RuntimeError, match=r"call Ledger\.plan_packs before"):
            ledger.index_rows()
        ledger.plan_packs(1000)
        with pytest.raises(RuntimeError, match="not packed yet"):
            ledger.index_rows()


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
    assert good.batch_id == bad.batch_id
    with Ledger(str(tmp_path), IDENTITY) as ledger:
        ledger.plan(planned([1, 2]))
        assert ledger.counts() == {"planned": 2, "ok": 2, "filtered": 0, "failed": 0}


def test_failed_items_are_tried_again_when_asked_for_and_the_better_outcome_counts(tmp_path):
    uri = str(tmp_path)
    with Ledger(uri, IDENTITY) as ledger:
        ledger.plan(planned(range(5)))
        ledger.add([work(uri, range(5), broken=True)])
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


def test_of_several_failures_the_last_is_told_and_attempts_add_up(tmp_path):
    def fail(ledger: Ledger, unit: str, error: str, attempts: int, before: list[int | None]) -> None:
        (left,) = ledger.pending(planned([0, 1]), retry_failed=True)
        assert left["attempts_before"].to_pylist() == before
        failed = Outcome("i000", "failed", error=error, attempts=attempts).with_prior_attempts(left.to_pylist()[0])
        ledger.add([write_part(ledger.uri, unit, SCHEMA.empty_table(), [failed], IDENTITY)])

    with Ledger(str(tmp_path), IDENTITY) as ledger:
        fail(ledger, "z", "stopped twice", 2, [None, None])
    with Ledger(str(tmp_path), IDENTITY) as ledger:
        fail(ledger, "y", "unreadable", 1, [2, None])
        fail(ledger, "x", "not even tried", 0, [3, None])
    with Ledger(str(tmp_path), IDENTITY) as ledger:
        ledger.plan(planned([0]))
        (told,) = ledger.failures()
    assert (told["error"].to_pylist(), told["attempts"].to_pylist()) == (["not even tried"], [4])


def test_metrics_of_batches_are_summed_up(tmp_path):
    with Ledger(str(tmp_path), IDENTITY) as ledger:
        for n in range(5):
            ledger.add([work(ledger.uri, [n])])
        ledger.add([work(ledger.uri, [2])])
        assert ledger.metrics() == {"s": 2.5}


# --- what is lost and what is not --------------------------------------------------------------------------------


def test_a_driver_that_noted_nothing_has_lost_nothing(tmp_path):
    uri = str(tmp_path)
    for n in range(0, 20, 4):
        work(uri, range(n, n + 4))
    with Ledger(uri, IDENTITY) as ledger:
        assert list(ledger.pending(planned(range(20)))) == []
    assert len(files(uri, "commits")) == 1


def test_commit_files_are_enough_so_a_resume_reads_no_footer(tmp_path):
    uri = str(tmp_path)
    for n in range(0, 20, 4):
        work(uri, range(n, n + 4))
    with Ledger(uri, IDENTITY):
        pass
    for part in (tmp_path / "parts").iterdir():
        part.write_bytes(b"")  # nobody looks
    with Ledger(uri, IDENTITY) as ledger:
        assert list(ledger.pending(planned(range(20)))) == []


def test_a_commit_file_is_written_every_so_many_items(tmp_path, monkeypatch):
    monkeypatch.setattr(commit_log, "ITEMS_PER_COMMIT_FILE", 6)
    with Ledger(str(tmp_path), IDENTITY) as ledger:
        for n in range(0, 20, 4):
            ledger.add([work(ledger.uri, range(n, n + 4))])
        assert len(files(ledger.uri, "commits")) == 2
    assert len(files(ledger.uri, "commits")) == 3


def test_many_commit_files_are_merged_and_nothing_is_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr(commit_log, "ITEMS_PER_COMMIT_FILE", 1)
    monkeypatch.setattr(commit_log, "ROWS_PER_MERGED_FILE", 9)
    monkeypatch.setattr(commit_log, "MAX_COMMIT_FILES", 4)
    uri = str(tmp_path)
    run(uri, range(30))
    assert len(files(uri, "commits")) == 4
    work(uri, [40, 41])
    with Ledger(uri, IDENTITY) as ledger:
        assert len(files(uri, "commits")) == 4  # now 5 were too many, so 4 again
        assert list(ledger.pending(planned([*range(30), 40, 41]))) == []
        assert ledger.counts()["failed"] == 3


def test_lost_commit_files_cost_work_but_no_row(tmp_path):
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
