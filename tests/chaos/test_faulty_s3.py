"""Tables on a faulty S3: disturbed requests change no table, or one error says what to do."""

import io
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.encode import pipeline as encoding
from pipelines.ingest import pipeline as ingesting
from tests.chaos._encode_job import SPEC, command
from tests.chaos._faulty_s3 import Fault, FaultySite
from videogen import storage
from videogen.data.datasets.clips_table import ClipsTable
from videogen.data.datasets.latents_table import LatentsTable
from videogen.errors import CredentialsError, StorageError

ROOT = Path(__file__).resolve().parents[2]
FAULTS = [
    Fault("error", 0.04),
    Fault("busy", 0.04),
    Fault("lost", 0.03),
    Fault("reset", 0.04, "GET"),
    Fault("truncated", 0.04, "GET"),
    Fault("slow", 0.03),
]
LATENTS = ("latents_8", "latents_8_logvar", "latents_16", "latents_16_logvar", "prompt_embeds")


@dataclass(frozen=True)
class Inputs:
    """URIs of everything that the job reads."""

    videos: str
    model: str


@pytest.fixture(scope="module")
def inputs(s3_endpoint, world_corpus, tiny_model, tmp_path_factory) -> Inputs:
    folder = tmp_path_factory.mktemp("faults") / "videos"
    shutil.copytree(world_corpus, folder)
    (folder / "broken.mp4").write_bytes(b"this is no video")
    captions = pd.read_parquet(folder / "captions.parquet")
    captions.loc[len(captions)] = ["broken.mp4", "a red circle moving left"]
    captions.to_parquet(folder / "captions.parquet")
    found = Inputs("s3://videogen-test/faults/videos", "s3://videogen-test/faults/model")
    storage.upload(folder, found.videos)
    storage.upload(tiny_model, found.model)
    return found


@pytest.fixture(scope="module")
def undisturbed(inputs, ray_cluster, tiny) -> str:
    """Return the URI of the tables of an undisturbed run."""
    output = "s3://videogen-test/faults/undisturbed"
    ingesting.ingest(inputs.videos, f"{output}/clips", ingesting.IngestOptions(SPEC))
    encoding.encode(f"{output}/clips", f"{output}/latents", tiny, inputs.model)
    return output


def run_job(site: FaultySite, inputs: Inputs, output: str) -> subprocess.CompletedProcess[str]:
    """Ingest and encode in a process with its own cluster, which reaches S3 through the proxy only."""
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.run(
        command(inputs.videos, output, inputs.model, 1, 1, 60.0, 0.5, "--ingest-first"),
        env={**env, "AWS_ENDPOINT_URL": site.endpoint},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


class Watch:
    """Reads, past the proxy, every object that appears under a prefix, and records incomplete ones."""

    def __init__(self, endpoint: str, uri: str) -> None:
        self._endpoint = endpoint
        self._bucket, _, self._prefix = uri.removeprefix("s3://").partition("/")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.seen: set[tuple[str, str]] = set()
        self.wrong: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        import boto3

        client = boto3.client("s3", endpoint_url=self._endpoint)
        while not self._stop.wait(0.05):
            for item in client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix).get("Contents", []):
                if (item["Key"], item["ETag"]) not in self.seen:
                    self._check(client, item["Key"])
                    self.seen.add((item["Key"], item["ETag"]))

    def _check(self, client, key: str) -> None:
        try:
            data = client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        except client.exceptions.NoSuchKey:
            return
        try:
            if key.endswith(".parquet"):
                pq.read_table(pa.BufferReader(data))
            elif key.endswith(".json"):
                json.loads(data)
        except ValueError as error:
            self.wrong.append(f"{key}: {error}")


def errors(uri: str) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(storage.read_bytes(f"{uri}/errors.parquet"))).drop(columns="log_tail")


def clip_rows(uri: str) -> pd.DataFrame:
    rows = pd.concat([batch.to_pandas() for batch in ClipsTable.open(uri).batches()], ignore_index=True)
    return rows.drop(columns=[name for name in ("shard", "row") if name in rows])


def assert_same(output: str, undisturbed: str) -> None:
    pd.testing.assert_frame_equal(clip_rows(f"{output}/clips"), clip_rows(f"{undisturbed}/clips"))
    for name in ("clips", "latents"):
        pd.testing.assert_frame_equal(errors(f"{output}/{name}"), errors(f"{undisturbed}/{name}"))
    table, whole = LatentsTable.open(f"{output}/latents"), LatentsTable.open(f"{undisturbed}/latents")
    assert len(table) == len(whole) == 6
    ids = set()
    for index in range(len(whole)):
        row, same = (one.row(index, (*LATENTS, "clip_id", "source", "caption")) for one in (table, whole))
        for name in LATENTS:
            assert np.array_equal(row.pop(name), same.pop(name)), name
        assert row == same
        ids.add(row["clip_id"])
    assert len(ids) == len(whole)
    for name in ("clips", "latents"):
        left = storage.list_files(f"{output}/{name}")
        assert not [uri for uri in left if "/parts/" in uri or "/plan/" in uri or uri.endswith("lease.json")]


def test_transient_faults_change_no_table(s3, s3_endpoint, inputs, undisturbed, figures):
    with FaultySite(s3_endpoint, FAULTS, seed=1) as site, Watch(s3_endpoint, s3) as watch:
        done = run_job(site, inputs, s3)
    figures.update(site.counts)
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(site.counts[fault.kind] for fault in FAULTS), site.counts
    assert len(watch.seen) > 10
    assert watch.wrong == []
    assert_same(s3, undisturbed)


def test_expired_credentials_stop_the_job_in_one_sentence_and_it_continues_with_new_ones(
    s3, s3_endpoint, inputs, undisturbed
):
    with FaultySite(s3_endpoint) as site, Watch(s3_endpoint, s3) as watch:
        for allowed in (90, 200):
            site.expire_after(allowed)
            ended = run_job(site, inputs, s3)
            site.renew()
            print(site.counts, ended.stderr)
            assert ended.returncode == 2, ended.stderr[-3000:]
            sentence = ended.stderr.strip().splitlines()[-1]
            assert sentence.startswith("error: ")
            for word in ("expired", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "same command"):
                assert word in sentence
            assert "Traceback" not in ended.stderr
            assert not storage.exists(f"{s3}/latents/manifest.json")
        done = run_job(site, inputs, s3)
    print(site.counts)
    assert done.returncode == 0, done.stderr[-3000:]
    assert watch.wrong == []
    assert_same(s3, undisturbed)


# --- storage functions ----------------------------------------------------------------------------------------------


@pytest.fixture
def site(s3_endpoint, monkeypatch) -> Iterator[FaultySite]:
    with FaultySite(s3_endpoint, seed=2) as site:
        monkeypatch.setenv("AWS_ENDPOINT_URL", site.endpoint)
        yield site


def test_whole_files_are_written_and_read_however_often_requests_fail(s3, site):
    site.faults = (
        Fault("error", 0.1, "GET HEAD PUT DELETE"),
        Fault("lost", 0.1, "GET HEAD PUT DELETE"),
        Fault("reset", 0.1, "GET"),
        Fault("truncated", 0.1, "GET"),
    )
    content = {f"{s3}/files/{number}": os.urandom(1000 * number + 1) for number in range(12)}
    for uri, data in content.items():
        storage.write_bytes(uri, data)
    assert storage.list_files(f"{s3}/files") == sorted(content)
    assert all(storage.read_bytes(uri) == data for uri, data in content.items())
    long = os.urandom(18 << 20)  # more than one part of an upload in parts
    with storage.atomic_stream(f"{s3}/long") as file:
        file.write(long[: 17 << 20])
        assert not storage.exists(f"{s3}/long")
        file.write(long[17 << 20 :])
    assert storage.read_bytes(f"{s3}/long") == long
    storage.remove(f"{s3}/files")
    assert storage.list_files(f"{s3}/files") == []
    assert all(site.counts[fault.kind] for fault in site.faults)


def test_an_upload_that_fails_is_not_seen(s3, site):
    def stop_half_way() -> None:
        with storage.atomic_stream(f"{s3}/never") as file:
            file.write(bytes(17 << 20))
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        stop_half_way()
    assert not storage.exists(f"{s3}/never")


def test_a_storage_that_never_recovers_is_named_in_one_sentence(s3, site):
    storage.write_bytes(f"{s3}/file", b"content")
    for kind in ("busy", "error"):
        site.faults = (Fault(kind, 1.0),)
        with pytest.raises(StorageError, match=r"^S3 failed at every attempt \(.*AWS_ENDPOINT_URL.*again\.$"):
            storage.read_bytes(f"{s3}/file")


@pytest.mark.parametrize("ask", [storage.read_bytes, storage.exists, storage.list_files, storage.remove])
def test_refused_credentials_are_named_whatever_was_asked(s3, site, ask):
    storage.write_bytes(f"{s3}/file", b"content")
    site.expire_after(0)
    with pytest.raises(CredentialsError, match=r"token has expired.*AWS_ACCESS_KEY_ID.*AWS_SESSION_TOKEN"):
        ask(f"{s3}/file")
    site.renew()
    assert storage.read_bytes(f"{s3}/file") == b"content"
