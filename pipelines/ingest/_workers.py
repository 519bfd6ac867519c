"""Ray workers of ingesting: analyse a batch of videos, commit the rows.

A batch travels as a one-row Arrow table: first the location of its items, then {unit_id, rows, outcomes, samples,
seconds}, at last {record}.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.runner.plan import WorkItemBatch
from videogen.data.datasets.clips import too_short
from videogen.data.datasets.clips_schema import IngestSpec, clip_rows, clips_schema
from videogen.data.isolation import DecoderDiedError, IsolatedDecoder, shared_decoder, video_limit_s
from videogen.data.sources import find_versions, version_mismatch
from videogen.data.tables import FAILED, FILTERED, OK, Outcome, write_part
from videogen.data.video import VideoError

ATTEMPTS = 2
"""For a decoder that died or was stopped; a video that is plainly unreadable is not tried again."""
_SAMPLES = 4
"""Frames of a clip that learned models see."""
_LOG_TAIL = 2000


@dataclass(frozen=True)
class IngestTask:
    """Settings of every ingesting worker. Plain values that pickle."""

    output: str
    identity: str
    spec: IngestSpec
    limit_s: float
    """Seconds that a small video may take."""
    needs_captions: bool
    """Whether videos without a caption are filtered: the corpus is captioned and no captioner is set."""


def analyse_batch(table: pa.Table, task: IngestTask) -> pa.Table:
    """Analyse every video of a batch.

    Args:
        table: one row, a `WorkItemBatch`.
        task: settings of the run.
    """
    started = time.perf_counter()
    batch = WorkItemBatch.of(table.to_pylist()[0])
    rows: list[dict[str, Any]] = []
    samples: list[list[bytes]] = []
    outcomes = []
    items = batch.items()
    # Also detects unreachable storage, which is no fault of a video.
    versions = find_versions([item["uri"] for item in items])
    for item, (version, num_bytes) in zip(items, versions, strict=True):
        found, outcome, pictures = _analyse(shared_decoder(), item, version, num_bytes, task)
        rows += found
        samples += pictures
        outcomes.append(outcome.with_prior_attempts(item))
    return pa.table(
        {
            "unit_id": [batch.unit_id],
            "rows": pa.array(
                [_ipc(pa.Table.from_pylist(rows, schema=clips_schema(task.spec.scores)))], pa.large_binary()
            ),
            "outcomes": [json.dumps([outcome.as_dict() for outcome in outcomes])],
            "samples": pa.array([samples], pa.list_(pa.list_(pa.large_binary()))),
            "seconds": [time.perf_counter() - started],
        }
    )


def commit_batch(table: pa.Table, task: IngestTask) -> pa.Table:
    """Commit the output of `analyse_batch`; return its record."""
    row = table.to_pylist()[0]
    with pa.ipc.open_stream(row["rows"]) as reader:
        rows = reader.read_all()
    return commit(row["unit_id"], rows, row["outcomes"], task, {"analyse_s": row["seconds"]})


def commit(unit_id: str, rows: pa.Table, outcomes: str, task: IngestTask, metrics: Mapping[str, float]) -> pa.Table:
    """Write the part of a batch; return its record as a one-row table."""
    ended = [Outcome(**values) for values in json.loads(outcomes)]
    record = write_part(task.output, unit_id, rows, ended, task.identity, metrics)
    return pa.table({"record": [record.to_json()]})


def _analyse(
    decoder: IsolatedDecoder, item: Mapping[str, Any], version: str, num_bytes: int | None, task: IngestTask
) -> tuple[list[dict[str, Any]], Outcome, list[list[bytes]]]:
    """Return the rows of a video, its outcome, and the sampled frames of each row for learned models.

    Args:
        decoder: isolated decoder.
        item: planned item.
        version: current version of the file, "" if it does not exist.
        num_bytes: size of the file.
        task: settings of the run.
    """
    known = {"item_id": item["item_id"], "uri": item["uri"]}
    if task.needs_captions and item["given_caption"] is None:
        return [], Outcome(**known, status=FILTERED, stage="captions", error="it has no caption"), []
    if reason := _plan_mismatch(item["version"], version):
        return [], Outcome(**known, status=FAILED, stage="fetch", error=reason), []
    limit_s = video_limit_s(task.limit_s, num_bytes)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            header, body = decoder.call("analyse", _request(item["uri"], task.spec), limit_s)
        except VideoError as error:
            stage = "analyse" if task.spec.decodes else "probe"
            tail = error.log_tail[-_LOG_TAIL:]
            outcome = Outcome(**known, status=FAILED, stage=stage, error=str(error), attempts=attempt, log_tail=tail)
            if not isinstance(error, DecoderDiedError):
                break
            continue
        rows = clip_rows(item, header, bytes(body), task.spec.scores)
        if not rows:
            reason = too_short(header["info"]["num_frames"], task.spec.num_frames)
            return [], Outcome(**known, status=FILTERED, stage="plan", error=reason, attempts=attempt), []
        pictures = [[bytes(body[at : at + size]) for at, size in clip["samples"]] for clip in header["clips"]]
        return rows, Outcome(**known, status=OK, attempts=attempt), pictures
    return [], outcome, []


def _plan_mismatch(planned: str, now: str) -> str:
    """Return how the file differs from the planned one; "" if it does not."""
    if not planned or not now:
        return "there is no such file"
    if version_mismatch(now, planned):
        return "it was replaced while the corpus was ingested: run the same command again"
    return ""


def _request(uri: str, spec: IngestSpec) -> dict[str, Any]:
    from videogen.data.curation import AnalyseRequest, WindowSpec

    return AnalyseRequest(
        source=uri,
        windows=WindowSpec(spec.num_frames, spec.fps, spec.stride_frames, spec.split_shots),
        scores=tuple(name for name in spec.scores if name != "aesthetic"),
        phash=spec.hashes,
        thumbnails=spec.thumbnails,
        num_samples=_SAMPLES if spec.is_learned else 0,
        decoder=spec.decoder,
    ).as_arguments()


def _ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    written: bytes = sink.getvalue().to_pybytes()
    return written
