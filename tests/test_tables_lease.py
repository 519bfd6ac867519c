"""Leases: one writer a table, and the dead do not hold up the living."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.runner.plan import BatchLimits, remove_abandoned_plans, remove_plan, write_plan
from tests._ledger import planned
from tests.conftest import LOCAL_AND_S3
from videogen import storage
from videogen.data.tables import Lease, Ledger, read_manifest
from videogen.data.tables.manifest import replace_manifest
from videogen.errors import UserError

HOLD = "import sys, time; from videogen.data.tables import Lease; Lease(sys.argv[1]).acquire(); "
HOLD += "print('held', flush=True); time.sleep(60)"


@pytest.fixture(params=LOCAL_AND_S3)
def table(request, tmp_path) -> str:
    return str(tmp_path / "table") if request.param == "local" else request.getfixturevalue("s3")


def altered(table: str, **changes) -> dict:
    """Rewrite a lease as if another had done it."""
    uri = storage.join(table, "lease.json")
    values = storage.read_json(uri) | changes
    storage.write_json(uri, values)
    return values


def test_a_second_writer_is_refused_until_the_first_has_ended(table):
    with Lease(table), pytest.raises(UserError, match=f"is being written by process {os.getpid()} on"):
        Lease(table).acquire()
    with Lease(table):
        pass
    assert not storage.exists(storage.join(table, "lease.json"))


@pytest.mark.process
def test_a_holder_that_was_killed_is_taken_over_at_once(table):
    with subprocess.Popen([sys.executable, "-c", HOLD, table], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"process {process.pid}"):
            Lease(table).acquire()
        process.send_signal(signal.SIGKILL)
        while Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
            time.sleep(0.01)
        # Dead, though its parent has not noticed yet.
        with Lease(table) as lease:
            lease.require()


def test_a_process_id_that_is_used_again_holds_nothing(table):
    lease = Lease(table).acquire()
    altered(table, process_start="1", token="other")
    with Lease(table) as other:
        other.require()
        with pytest.raises(UserError, match="taken over"):
            lease.require()
    lease.release()


def test_a_holder_on_another_machine_lives_as_long_as_it_renews(table):
    Lease(table).acquire()._stop.set()
    altered(table, machine="elsewhere", host="far", token="theirs", renewed=time.time())
    with pytest.raises(UserError, match="on far"):
        Lease(table, heartbeat_s=0.05, stale_s=5).acquire()
    # Not renewed for long, by a clock that may be wrong: what counts is whether it changes.
    altered(table, renewed=time.time() - 100)
    with Lease(table, heartbeat_s=0.05, stale_s=5) as lease:
        lease.require()


@pytest.mark.process
def test_a_holder_whose_clock_is_wrong_is_not_taken_over_while_it_renews(tmp_path):
    Lease(str(tmp_path)).acquire()._stop.set()
    altered(str(tmp_path), machine="elsewhere", host="far", token="theirs", renewed=1.0)
    script = (
        "import json, sys, time, pathlib\n"
        "path = pathlib.Path(sys.argv[1], 'lease.json')\n"
        "for beat in range(200):\n"
        "    path.with_suffix('.new').write_text(json.dumps({**json.loads(path.read_text()), 'beats': beat}))\n"
        "    path.with_suffix('.new').replace(path)\n"
        "    time.sleep(0.02)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, tmp_path])
    while storage.read_json(str(tmp_path / "lease.json"))["beats"] < 2:
        time.sleep(0.01)
    with pytest.raises(UserError, match="on far"):
        Lease(str(tmp_path), heartbeat_s=0.3, stale_s=1).acquire()
    process.kill()
    process.wait()


def test_a_held_lease_is_renewed_and_stays_ours(table):
    with Lease(table, heartbeat_s=0.05) as lease:
        first = storage.read_json(storage.join(table, "lease.json"))
        deadline = time.monotonic() + 4
        while storage.read_json(storage.join(table, "lease.json"))["beats"] < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        later = storage.read_json(storage.join(table, "lease.json"))
        assert later["token"] == first["token"]
        assert later["renewed"] > first["renewed"]
        lease.require()


@pytest.mark.process
def test_of_many_that_start_at_once_one_wins(table):
    script = (
        "import sys, time; from videogen.data.tables import Lease; from videogen.errors import UserError\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "try:\n"
        "    Lease(sys.argv[1]).acquire(); print('won', flush=True); sys.stdin.readline()\n"
        "except UserError as error:\n"
        "    print('refused', flush=True)\n"
    )
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with contextlib.ExitStack() as stack:
        racers = [
            stack.enter_context(subprocess.Popen([sys.executable, "-c", script, table], **pipes)) for _ in range(3)
        ]
        assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 3
        for racer in racers:
            racer.stdin.write("\n")
            racer.stdin.flush()
        assert sorted(racer.stdout.readline() for racer in racers) == ["refused\n", "refused\n", "won\n"]
        for racer in racers:
            racer.kill()


def test_who_was_taken_over_publishes_nothing(tmp_path):
    uri = str(tmp_path)
    with Lease(uri) as lease, Ledger(uri, "abc", lease) as ledger:
        ledger.plan(iter(()))
        ledger.plan_packs(1)
        index = ledger.index_rows()
        altered(uri, token="theirs")
        with pytest.raises(UserError, match="taken over by another run"):
            ledger.publish({}, index)
    assert not (tmp_path / "manifest.json").exists()
    assert json.loads((tmp_path / "lease.json").read_text())["token"] == "theirs"


def test_a_driver_that_stood_still_replaces_no_manifest_of_the_other(table):
    uri = storage.join(table, "manifest.json")
    looks = []

    def require_lease() -> None:
        """Stand still right after the look, while another run takes over and publishes."""
        looks.append("")
        if len(looks) > 1:
            raise UserError("taken over")
        storage.write_json(uri, {"whose": "theirs"})

    storage.write_json(uri, {"whose": "earlier"})
    with pytest.raises(UserError, match="taken over"):
        replace_manifest(table, {"whose": "mine"}, require_lease)
    assert read_manifest(table) == {"whose": "theirs"}


def test_a_driver_that_stood_still_removes_no_plan_of_the_other(tmp_path):
    uri = str(tmp_path)
    abandoned = write_plan(uri, planned(range(4)), "abc", BatchLimits(2))
    os.utime(abandoned[0].plan, (0, 0))
    with Lease(uri) as lease:
        mine = write_plan(uri, planned(range(4)), "abc", BatchLimits(2))
        altered(uri, token="theirs")
        theirs = write_plan(uri, planned(range(4)), "abc", BatchLimits(2))
        with pytest.raises(UserError, match="taken over"):
            remove_abandoned_plans(uri, lease)
        remove_plan(mine)
        assert not Path(mine[0].plan).exists()
        assert [item["n"] for unit in theirs for item in unit.items()] == list(range(4))
        altered(uri, token=lease._mine.token)
        remove_abandoned_plans(uri, lease)
    assert [str(path) for path in (tmp_path / "plan").iterdir()] == [theirs[0].plan]


def test_a_file_that_has_changed_since_it_was_read_is_neither_replaced_nor_removed(table):
    uri = storage.join(table, "file.json")
    _, nothing = storage.read_versioned(uri)
    assert storage.replace_if_unchanged(uri, b"first", nothing)
    assert not storage.replace_if_unchanged(uri, b"second", nothing)
    data, mark = storage.read_versioned(uri)
    assert data == b"first"
    assert storage.replace_if_unchanged(uri, b"second", mark)
    assert not storage.remove_if_unchanged(uri, mark)
    assert storage.read_versioned(uri)[0] == b"second"
    assert storage.remove_if_unchanged(uri, storage.read_versioned(uri)[1])
    assert not storage.exists(uri)


def test_a_lease_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "lease.json").write_text("{")
    with pytest.raises(UserError, match=r"lease\.json' cannot be read: remove it"):
        Lease(str(tmp_path)).acquire()
