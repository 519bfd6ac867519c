"""Leftovers of crashed runs: collected once unreachable, and harmless after kill -9."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests._ledger import IDENTITY, expected, files, planned, read, run, work
from tests.conftest import LOCAL_AND_S3, load_job
from videogen import storage
from videogen.data.tables import Lease, Ledger, vacuum_table
from videogen.errors import UserError

# --- vacuum ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", LOCAL_AND_S3)
def test_vacuum_removes_what_neither_readers_nor_the_next_run_need(where, tmp_path, request):
    uri = str(tmp_path / "table") if where == "local" else request.getfixturevalue("s3")
    run(uri, range(20))
    old = run(uri, range(10))
    for name in ("shards/old.parquet", "index/old.parquet", "parts/old.parquet", "commits/other-old.parquet"):
        storage.write_bytes(storage.join(uri, name), b"x")
    storage.write_bytes(storage.join(uri, "shards/.new.0.partial"), b"x")
    for mine in ("report/shards/mine.parquet", "shards/mine.txt"):
        storage.write_bytes(storage.join(uri, mine), b"x")
    work(uri, [50, 51])  # not planned, but good
    work(uri, [60], identity="other")
    before = storage.list_files(uri)
    if where == "s3":
        time.sleep(1.1)  # times of objects are whole seconds
    assert vacuum_table(uri, retain_s=3600) == []
    found = vacuum_table(uri, retain_s=0, dry_run=True)
    assert storage.list_files(uri) == before
    assert vacuum_table(uri, retain_s=0) == found
    names = {file.uri.removeprefix(f"{uri}/") for file in found}
    assert {"shards/old.parquet", "index/old.parquet", "parts/old.parquet", "commits/other-old.parquet"} < names
    assert "shards/.new.0.partial" in names
    assert len([name for name in names if name.startswith("parts/")]) == 2
    assert len([name for name in names if name.startswith("history/")]) == 1
    assert set(storage.list_files(uri)) == set(before) - {file.uri for file in found}
    assert not [name for name in names if "mine" in name]
    assert read(uri, old) == expected(range(10))
    with Ledger(uri, IDENTITY) as ledger:
        assert list(ledger.pending(planned([50, 51]))) == []


def test_what_an_earlier_manifest_names_is_kept_for_as_long_as_is_asked_for(tmp_path, capsys):
    uri = str(tmp_path)
    first = run(uri, range(20))
    second = run(uri, range(5))
    (copy,) = (tmp_path / "history").iterdir()
    assert json.loads(copy.read_text()) == first
    day = time.time() - 24 * 3600
    for path in tmp_path.rglob("*.parquet"):
        os.utime(path, (day, day))
    vacuum_job = load_job("vacuum_table").main
    vacuum_job([uri, "--retain-hours", "12"])
    # All files are old, but the manifest that names them was replaced just now.
    assert read(uri, first) == expected(range(20))
    os.utime(copy, (day, day))
    vacuum_job([uri])
    assert read(uri, first) == expected(range(20))
    vacuum_job([uri, "--retain-hours", "12", "--dry-run"])
    assert read(uri, first) == expected(range(20))
    assert f"{copy}\n" in capsys.readouterr().out
    vacuum_job([uri, "--retain-hours", "12"])
    assert len(files(uri, "shards")) == len(second["shards"]) < len(first["shards"])
    assert not copy.exists()
    assert read(uri, second) == expected(range(5))
    # What is gone is made again when it is planned again.
    assert read(uri, run(uri, range(20))) == expected(range(20))


@pytest.mark.parametrize("left", [None, b"[]"])
def test_a_manifest_that_goes_while_files_are_listed_condemns_nothing(tmp_path, monkeypatch, left):
    uri = str(tmp_path)
    run(uri, range(20))
    manifest = tmp_path / "manifest.json"

    acquire = Lease.acquire

    def acquire_late(lease):
        if left is None:
            manifest.unlink()
        else:
            manifest.write_bytes(left)
        return acquire(lease)

    monkeypatch.setattr(Lease, "acquire", acquire_late)
    before = set(files(uri, "shards"))
    with pytest.raises(UserError, match="no finished table any more: nothing was removed"):
        vacuum_table(uri, retain_s=0)
    assert before
    assert set(files(uri, "shards")) == before


def test_vacuum_is_refused_beside_a_run_and_where_no_table_is(tmp_path):
    uri = str(tmp_path / "table")
    with pytest.raises(UserError, match="no finished table"):
        vacuum_table(uri)
    assert not (tmp_path / "table").exists()
    run(uri, range(3))
    with Lease(uri), pytest.raises(UserError, match="is being written by"):
        vacuum_table(uri, dry_run=True)
    with pytest.raises(UserError, match="--retain-hours is -1"):
        load_job("vacuum_table").main([uri, "--retain-hours", "-1"])


# --- kill -9 -----------------------------------------------------------------------------------------------------

CRASHES = '''
import gc, os, random, signal, sys

sys.path.insert(0, sys.argv[1])
from tests import _ledger as ledger_tests

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


@pytest.mark.process
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


DIES_AT_THE_FIRST_REMOVAL = """
import os, signal, sys

sys.path.insert(0, sys.argv[1])
from tests import _ledger as ledger_tests


def die(event, arguments):
    if event == "os.remove" and "/parts/" in str(arguments[0]) and not str(arguments[0]).endswith(".partial"):
        os.kill(os.getpid(), signal.SIGKILL)


sys.addaudithook(die)
ledger_tests.run(sys.argv[2], range(12))
"""


@pytest.mark.process
def test_parts_of_a_run_that_was_killed_right_after_it_published_go_with_the_next(tmp_path):
    uri = str(tmp_path / "table")
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", DIES_AT_THE_FIRST_REMOVAL, root, uri]
    assert subprocess.run([str(word) for word in command], cwd=root, timeout=60).returncode == -signal.SIGKILL
    assert storage.exists(storage.join(uri, "manifest.json"))
    assert files(uri, "parts") != []
    with Lease(uri) as lease, Ledger(uri, IDENTITY, lease) as ledger:
        assert list(ledger.pending(planned(range(12)))) == []
        ledger.clean_up()
        assert read(uri, ledger.published()) == expected(range(12))
    assert files(uri, "parts") == []


@pytest.mark.process
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
