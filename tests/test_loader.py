"""Training loader: resuming, parquet shards, failing storage, selection of clips, and data that changes."""

import contextlib
import itertools
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests._loader_clips import Numbered, ParquetClips, collate, numbers, write_latents, write_shards
from videogen.data.datasets.dataset import ClipDataset, JoinedClips
from videogen.data.datasets.frames import FrameDataset
from videogen.data.datasets.latents_table import LatentsTable
from videogen.data.tables import Row, ShardReadError, read_shard
from videogen.errors import UserError
from videogen.training.datasets import data_fingerprint, require_unchanged, where_of
from videogen.training.loader import BatchPlan, Loader
from videogen.training.state import TrainState

# --- reading and resuming ----------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 12), st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_a_run_stopped_in_mid_epoch_goes_on_bit_equal(cut, readers, prefetch, two_shapes):
    labels = [row % 3 > 0 for row in range(160)] if two_shapes else None
    dataset = Numbered([8] * 20, labels)
    whole = numbers(dataset, BatchPlan(12), 0, 16, shuffle_buffer=32)
    loader = Loader(dataset, ("number",), collate, BatchPlan(12), 7, num_readers=3, shuffle_buffer=32, prefetch_steps=4)
    before = [[number for micro in step for number in micro.batch["number"]] for step in _first(loader, cut)]
    options = {"num_readers": readers, "prefetch_steps": prefetch, "shuffle_buffer": 32}
    after = [numbers(dataset, BatchPlan(12, 1, 2, rank), cut * 12, 16 - cut, **options) for rank in range(2)]
    assert before + [left + right for left, right in zip(*after, strict=True)] == whole


def _first(loader: Loader, count: int) -> Iterator[Any]:
    """Yield the first steps and leave with others being read."""
    steps: Any = loader.steps(0, 100)
    for _ in range(count):
        yield next(steps)
    steps.close()


def test_no_more_steps_are_read_ahead_than_promised():
    asked: list[int] = []
    enough = threading.Event()

    class Watched(Numbered):
        def row(self, index: int, fields: Sequence[str]) -> Row:
            asked.append(index)
            if len(asked) >= 12:
                enough.set()
            return super().row(index, fields)

    loader = Loader(Watched([8] * 20), ("number",), collate, BatchPlan(4), 0, num_readers=2, prefetch_steps=2)
    steps: Any = loader.steps(0, 40)
    next(steps)
    assert enough.wait(5)
    next(steps)
    steps.close()
    assert 12 <= len(asked) <= 16  # two steps taken, two ahead


@pytest.mark.process
def test_two_processes_read_one_epoch_of_real_shards_together(tmp_path):
    uri = write_shards(str(tmp_path / "shards"), num_shards=4, rows=64, rows_per_group=8)
    code = "import sys; from tests.test_loader import print_share; print_share(sys.argv[1], int(sys.argv[2]))"
    workers = [
        subprocess.Popen([sys.executable, "-c", code, uri, str(rank)], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    shares = [json.loads(worker.communicate(timeout=60)[0]) for worker in workers]
    together = [left + right for left, right in zip(shares[0]["steps"], shares[1]["steps"], strict=True)]
    assert together == numbers(ParquetClips(uri), BatchPlan(16), 0, 16, shuffle_buffer=64)
    assert sorted(itertools.chain(*together)) == list(range(256))
    # Of 32 row groups; each process on its own would read nearly all of them if its share were any half of the rows.
    assert sum(share["reads"] for share in shares) <= 40


def print_share(uri: str, rank: int) -> None:
    """Print what one of two workers reads, and how many row groups that takes."""
    dataset = ParquetClips(uri, cached_groups=8)
    steps = numbers(dataset, BatchPlan(16, 1, 2, rank), 0, 16, shuffle_buffer=64)
    print(json.dumps({"steps": steps, "reads": len(dataset.reads)}))


def test_readers_that_want_the_same_row_group_read_it_once(tmp_path):
    dataset = ParquetClips(write_shards(str(tmp_path), 1, 64, 32))
    numbers(dataset, BatchPlan(16), 0, 4, num_readers=8)
    assert sorted(dataset.reads) == [0, 1]


# --- storage that fails ------------------------------------------------------------------------------------------


def test_storage_that_fails_for_a_while_is_asked_again():
    outcomes = iter([ConnectionResetError("reset by peer"), TimeoutError("too slow"), None])

    def read() -> str:
        outcome = next(outcomes)
        if outcome is not None:
            raise outcome
        return "rows"

    assert read_shard("s3://bucket/a.parquet", read, first_wait_s=0.001) == "rows"


def test_storage_that_keeps_failing_is_given_up_with_the_name_of_the_shard():
    attempts = []

    def read() -> None:
        attempts.append(1)
        raise ConnectionResetError("reset by peer")

    with pytest.raises(ShardReadError, match=r"'s3://bucket/a.parquet' .* after 3 attempts .*reset by peer.*network"):
        read_shard("s3://bucket/a.parquet", read, attempts=3, first_wait_s=0.001)
    assert len(attempts) == 3


def test_mistakes_of_ours_are_not_taken_for_storage():
    with pytest.raises(KeyError):
        read_shard("a.parquet", lambda: dict[str, Any]()["latents"])


@pytest.mark.parametrize("damage", ["flipped", "truncated", "emptied", "removed"])
def test_a_damaged_shard_fails_in_one_sentence_with_its_name(tmp_path, damage):
    dataset = ParquetClips(write_shards(str(tmp_path), 3, 16, 8))
    shard = tmp_path / "0001.parquet"
    content = bytearray(shard.read_bytes())
    content[2500] ^= 4
    new = {"flipped": content, "truncated": content[: len(content) // 2], "emptied": b""}
    shard.unlink() if damage == "removed" else shard.write_bytes(new[damage])
    with pytest.raises(UserError, match=r"0001\.parquet") as caught:
        numbers(dataset, BatchPlan(8), 0, 6, num_readers=2)
    sentence = str(caught.value)
    assert ("is missing" if damage == "removed" else "damaged") in sentence
    assert "\n" not in sentence


class Gate:
    """A TCP relay to the S3 server that resets connections for as long as `failures` lasts."""

    def __init__(self, endpoint: str) -> None:
        host, port = endpoint.removeprefix("http://").split(":")
        self._target = (host, int(port))
        self.failures = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self._target) as server:
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            while data := client.recv(65536):
                if b".parquet" in data and self.failures > 0:
                    self.failures -= 1
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    return
                server.sendall(data)

    def close(self) -> None:
        self._server.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)


@pytest.fixture
def gate(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    import s3fs

    relay = Gate(s3_endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", relay.endpoint)
    s3fs.S3FileSystem.clear_instance_cache()
    yield relay
    relay.close()
    s3fs.S3FileSystem.clear_instance_cache()


def test_reading_from_s3_survives_connections_that_are_reset(s3, gate):
    dataset = ParquetClips(write_shards(s3, 2, 16, 8))
    expected = numbers(dataset, BatchPlan(8), 0, 4)
    dataset = ParquetClips(s3)
    gate.failures = 3  # more than botocore's own attempts for one request
    assert numbers(dataset, BatchPlan(8), 0, 4) == expected
    assert gate.failures == 0


# --- choosing, and data that changes -----------------------------------------------------------------------------


def clip_numbers(dataset: ClipDataset, batch: int, num_steps: int, shuffle_buffer: int) -> list[int]:
    loader = Loader(dataset, ("latents_2",), collate, BatchPlan(batch), 7, 2, shuffle_buffer)
    steps = loader.steps(0, num_steps)
    return [int(latents.flat[0]) for step in steps for micro in step for latents in micro.batch["latents_2"]]


def test_tables_of_latents_are_read_by_row_groups_and_chosen_from(tmp_path):
    tables = [write_latents(str(tmp_path / name), count) for name, count in (("a", 96), ("b", 48))]
    joined = JoinedClips(tables)
    assert np.diff(joined.block_ends(), prepend=0).tolist() == [8] * 18
    numbers = clip_numbers(joined, 16, 9, shuffle_buffer=32)
    assert sorted(numbers) == sorted([*range(96), *range(48)])
    # Every third clip is slow, and no batch holds both kinds.
    assert all(len({number % 3 == 0 for number in numbers[start : start + 16]}) == 1 for start in range(0, 144, 16))

    slow = joined.select("fps < 16")
    expected = sorted(number for number in (*range(96), *range(48)) if number % 3 == 0)
    assert len(slow) == len(expected) == 48
    assert sorted(clip_numbers(slow, 8, 6, shuffle_buffer=16)) == expected
    assert len(slow.block_ends()) == 18
    assert len({joined.fingerprint, slow.fingerprint, joined.select("fps > 16").fingerprint}) == 3
    assert slow.fingerprint == JoinedClips([LatentsTable.open(t.uri) for t in tables]).select("fps < 16").fingerprint
    with pytest.raises(UserError, match=r"holds no clips.*where"):
        Loader(joined.select("fps > 99"), ("latents_2",), collate, BatchPlan(4), seed=0)
    with pytest.raises(UserError, match="fsp"):
        len(joined.select("fsp > 16"))


@pytest.mark.process
def test_raw_videos_cannot_be_chosen_by_columns(world_corpus, tiny):
    from videogen.stages import apply_overrides

    with pytest.raises(UserError, match=r"raw videos.*encode them"):
        JoinedClips([FrameDataset.open(str(world_corpus), tiny)]).select("motion > 0.5")
    config = apply_overrides(tiny, ["autoencoder.training.where=motion > 0.5"])
    with pytest.raises(UserError, match=r"autoencoder\.training\.where .*leave it empty"):
        where_of("autoencoder", config)


@pytest.mark.process
def test_a_run_does_not_go_on_when_its_data_has_changed(world_corpus, tiny, tmp_path):
    corpus = tmp_path / "corpus"
    shutil.copytree(world_corpus, corpus)
    planned = data_fingerprint("autoencoder", [str(corpus)], tiny)
    dataset = FrameDataset.open(str(corpus), tiny)
    require_unchanged(dataset, "autoencoder", [str(corpus)], tiny, planned)
    shutil.copy(corpus / "clip_0.mp4", corpus / "clip_9.mp4")
    with pytest.raises(UserError, match=rf"has changed since this run began .*{planned}"):
        require_unchanged(dataset, "autoencoder", [str(corpus)], tiny, planned)


def test_a_checkpoint_of_other_data_is_refused():
    saved = TrainState(seed=0, run="base-1", world_size=2, data="aaaa", samples_seen=64, step=4)
    assert TrainState(0, "base-1", 1, "aaaa").at(TrainState.from_dict(saved.as_dict())).samples_seen == 64
    with pytest.raises(UserError, match=r"'base-1' .*'aaaa' .*'bbbb'"):
        TrainState(0, "base-1", 1, "bbbb").at(saved)
