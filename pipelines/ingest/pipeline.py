"""Ingest pipeline: a corpus of raw videos to a table of clips.

    videos -> plan, in batches -> analyse each in a child process (CPU tasks) -> learned models (actors, if any)
           -> parts -> shards -> near duplicates, policy -> index, report

Every video ends as rows, or as a row of `filtered.parquet` or `errors.parquet`. Scores are stored for all clips; the
policy is applied when the table is published, so changing it decodes nothing again.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipelines import cluster
from pipelines.cluster.pools import affordable, shares, two_steps
from pipelines.cluster.progress import Progress, shown
from pipelines.ingest._publish import apply_policy
from pipelines.ingest._workers import IngestTask, analyse_batch, commit_batch
from pipelines.runner.plan import BatchLimits
from pipelines.runner.preflight import require_apart, require_kind, require_same
from pipelines.runner.run import (
    FILTERED_NAME,
    Fingerprint,
    RunOptions,
    Work,
    is_unchanged,
    pack,
    run_pending,
)
from videogen import storage
from videogen.data.curation import Policy
from videogen.data.curation.duplicates import DedupThresholds
from videogen.data.datasets.clips_schema import (
    BLOB_COLUMNS,
    CLIPS,
    KIND,
    SCHEMA_VERSION,
    IngestSpec,
    clips_index_schema,
    clips_schema,
)
from videogen.data.sources import Source, open_corpus
from videogen.data.tables import ERRORS_NAME, FAILED, FILTERED, Lease, Ledger
from videogen.data.video import decoder_versions, require_decoder
from videogen.errors import UserError
from videogen.hashing import content_hash
from videogen.reporting.table import write_report

if TYPE_CHECKING:
    import ray.data

VIDEOS_PER_BATCH = 32
_BATCH_BYTES = 1 << 30
_WORKER_BYTES = 5 << 29
"""Memory declared per analysis worker, for its decoder child."""
_LEARNED_BYTES = 4 << 30
"""Memory declared per worker that also runs networks."""


@dataclass(frozen=True)
class IngestOptions:
    """Options of ingesting: analysis, policy, deduplication, handling of failures."""

    spec: IngestSpec
    policy: Policy = field(default_factory=lambda: Policy({}))
    """Rules that a clip must pass to be kept."""
    run: RunOptions = field(default_factory=RunOptions)
    dedup: DedupThresholds = field(default_factory=DedupThresholds)
    """Thresholds of near duplicates."""


@dataclass(frozen=True)
class IngestResult:
    """Result of ingesting, counted in videos; planned = ok + filtered + failed."""

    uri: str
    planned: int
    ok: int
    filtered: int
    failed: int
    clips: int
    kept: int
    """Clips that no rule drops."""
    done_now: int
    """Videos that this call processed."""
    seconds: float


def ingest(
    input_uri: str,
    output_uri: str,
    options: IngestOptions,
    captions: str | None = None,
    progress: Progress | None = None,
) -> IngestResult:
    """Turn a corpus into a table of clips, or update the table.

    Args:
        input_uri: folder, S3 prefix, video or manifest; see `videogen.data.sources.open_corpus`.
        output_uri: folder of the table. An interrupted run continues; finished videos are skipped.
        options: analysis, policy and handling of failures.
        captions: table of captions; None: `captions.*` in the input folder, if any.
        progress: display to use; None opens one for this call.

    Raises:
        UserError: invalid arguments, before any work; or no video gives a clip.
        RuntimeError: a worker failed for a reason that is not a single video's.
    """
    with shown(progress) as progress:
        started = time.perf_counter()
        source, output, identity = prepare(input_uri, output_uri, options, captions)
        spec = options.spec
        needs_captions = source.has_captions and not spec.captioner
        task = IngestTask(output, identity, spec, options.run.limit_s, needs_captions)
        with Lease(output) as lease, Ledger(output, task.identity, lease) as ledger:
            decided = (dict(options.policy.rules), *astuple(options.dedup), source.has_captions)
            fingerprint = Fingerprint(SCHEMA_VERSION, decided)
            ledger.plan(fingerprint.over(_items(source, needs_captions)))
            for note in source.notes:
                progress.say(note)
            done_now = run_pending(ledger, _work(task), options.run, progress)
            if done_now or not is_unchanged(ledger, fingerprint.value()):
                _publish(ledger, source, options, fingerprint.value(), progress)
            else:
                ledger.clean_up()
            manifest = ledger.published()
            write_report(output)
        counts = manifest["counts"]
        return IngestResult(
            uri=output,
            **{name: counts[name] for name in ("planned", "ok", "filtered", "failed")},
            clips=counts["rows"],
            kept=manifest["kept"],
            done_now=done_now,
            seconds=time.perf_counter() - started,
        )


def prepare(
    input_uri: str, output_uri: str, options: IngestOptions, captions: str | None = None
) -> tuple[Source, str, str]:
    """Validate every argument of `ingest`; return the source, the table's folder and its identity.

    Raises:
        UserError: the first invalid argument.
    """
    output, spec = storage.absolute(output_uri), options.spec
    require_decoder(spec.decoder)
    options.policy.check(clips_index_schema(spec.scores))
    storage.require_writable(output, "Output")
    require_apart(input_uri, output)
    identity = spec.identity(_fingerprints(spec))
    require_own_clips(output, spec, identity, options.run.replace)
    return open_corpus(input_uri, captions), output, identity


def require_own_clips(output: str, spec: IngestSpec, identity: str, replace: bool) -> None:
    """Refuse an output folder with other data, or with clips made with other settings.

    Raises:
        UserError: the folder is not usable.
    """
    require_kind(output, CLIPS)
    require_same(output, identity, {"spec": asdict(spec)}, replace)


def _fingerprints(spec: IngestSpec) -> dict[str, str]:
    """Return the fingerprints of the networks of a specification, after validating their folders."""
    if not spec.is_learned:
        return {}
    from videogen.data.curation.learned import AestheticScore, Captioner, ClipEmbedding, fingerprint

    named = {"embedding": spec.embedding, "aesthetic": spec.aesthetic, "captioner": spec.captioner}
    found = {name: fingerprint(uri, f"--{name}") for name, uri in named.items() if uri}
    if spec.captioner:
        Captioner.check(spec.captioner)
    width = ClipEmbedding.check(spec.embedding) if spec.embedding else 0
    if spec.aesthetic:
        AestheticScore.check(spec.aesthetic, width or ClipEmbedding.check(spec.aesthetic))
    return found


def _items(source: Source, needs_captions: bool) -> Iterator[pa.RecordBatch]:
    """Yield videos as planned items; the item id includes the video's version and caption.

    For a video without a caption it includes whether captions are required, because the outcome depends on it.
    """
    for batch in source.batches():
        ids = batch["video_id"].to_pylist()
        captions = batch["caption"].to_pylist()
        told = [needs_captions if caption is None else caption for caption in captions]
        named = [content_hash(one, caption) for one, caption in zip(ids, told, strict=True)]
        columns = {"item_id": pa.array(named, pa.string())}
        columns |= {name: batch[name] for name in ("video_id", "uri", "path", "version")}
        columns |= {"given_caption": batch["caption"], "weight": batch["size_bytes"]}
        yield pa.record_batch(columns)


def _work(task: IngestTask) -> Work:
    operators = ("analyse_s", "learn_s") if task.spec.is_learned else ("analyse_s",)

    def graph(batches: "ray.data.Dataset", num_batches: int) -> tuple["ray.data.Dataset", Sequence[int]]:
        one: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": 1}
        if task.spec.is_learned:
            from pipelines.ingest._model_workers import ModelActor

            return two_steps(batches, analyse_batch, ModelActor, task, shares(num_batches, _LEARNED_BYTES))
        # Ray fuses two tasks with the same resources: nothing crosses the object store.
        each = {"num_cpus": 1, "memory": affordable(_WORKER_BYTES)}
        found = batches.map_batches(analyse_batch, fn_args=(task,), **each, **one)
        graph = found.map_batches(commit_batch, fn_args=(task,), **each, **one)
        return graph, [max(1, int(cluster.total().cpus))]

    return Work("ingest", "videos", BatchLimits(VIDEOS_PER_BATCH, _BATCH_BYTES), graph, operators)


def _publish(
    ledger: Ledger, source: Source, options: IngestOptions, input_fingerprint: str, progress: Progress
) -> None:
    """Pack parts into shards, find duplicates, apply the policy and publish the table.

    Raises:
        UserError: no clip was found.
    """
    counts = ledger.require_complete()
    ledger.write_outcomes(FILTERED, FILTERED_NAME)
    if not counts["ok"]:
        ledger.write_outcomes(FAILED, ERRORS_NAME)
        raise UserError(_nothing_usable(ledger, counts["planned"], options.spec.num_frames))
    pack(ledger, options.run, progress)
    spec = options.spec
    planned = {"item_id", "video_id", "path", "version"}
    columns = [name for name in clips_schema(spec.scores).names if name not in planned | set(BLOB_COLUMNS)]
    columns += ["embedding"] if spec.embedding else []
    located = ledger.index_rows(columns=columns)
    applied = apply_policy(located, spec, options.policy, options.dedup)
    with progress.task("publish", total=1, unit="tables") as task, applied as result:
        manifest = {
            "kind": KIND,
            "schema_version": SCHEMA_VERSION,
            "spec": asdict(spec),
            "scores": list(spec.scores),
            "policy": dict(options.policy.rules),
            "has_captions": source.has_captions or spec.captioner is not None,
            "source": source.uri,
            "input_fingerprint": input_fingerprint,
            "kept": result.kept,
            "funnel": result.funnel,
            "facts": ledger.metrics(),
            "decoders": decoder_versions(),
        }
        ledger.publish(manifest, result.batches())
        task.advance()


def _nothing_usable(ledger: Ledger, planned: int, num_frames: int) -> str:
    for status in (FAILED, FILTERED):
        for batch in ledger.outcomes(status):
            first: dict[str, Any] = batch.slice(0, 1).to_pylist()[0]
            reason = f"of {first['uri']!r}: {first['error']}"
            return f"None of the {planned} videos gives a clip of {num_frames} frames; {reason}."
    return f"None of the {planned} videos gives a clip of {num_frames} frames."


def score_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the named scores in their fixed order.

    Raises:
        UserError: there is no such score.
    """
    from videogen.cli import suggest
    from videogen.data.curation.scores import SCORES

    for name in names:
        if name not in SCORES and name != "all":
            raise UserError(f"There is no score {name!r}.{suggest(name, SCORES)} Choose from {', '.join(SCORES)}, all.")
    return tuple(name for name in SCORES if name in names or "all" in names)
