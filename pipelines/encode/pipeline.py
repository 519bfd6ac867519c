"""Encoding pipeline: clips to a table of latents.

    clips -> plan, in batches -> decode (CPU tasks, each with a child process) -> VAE + text encoder (actor pool)
          -> parts -> shards -> index

Without GPUs the actors also decode.

A folder of videos is first ingested into `clips/` of the table, from headers alone. Of a clips table made by
jobs/ingest.py, the clips that its policy keeps are encoded.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import cluster
from pipelines.cluster.pools import shares, two_steps
from pipelines.cluster.progress import Progress, shown
from pipelines.encode.plan import CLIPS_FOLDER, EncodeJob, EncodeOptions, clips_of_folder, prepare
from pipelines.encode.workers import EncodeActor, decode_batch
from pipelines.ingest.pipeline import IngestOptions, ingest
from pipelines.runner.plan import BatchLimits
from pipelines.runner.run import (
    FILTERED_NAME,
    Fingerprint,
    Work,
    is_unchanged,
    pack,
    run_pending,
)
from videogen import storage
from videogen.data.datasets.clips_table import ClipsTable
from videogen.data.datasets.latents_schema import KIND, SCHEMA_VERSION
from videogen.data.tables import ERRORS_NAME, FAILED, MANIFEST_NAME, Lease, Ledger, conjunction
from videogen.data.video import decoder_versions
from videogen.errors import UserError
from videogen.hashing import content_hash
from videogen.reporting.table import write_report
from videogen.stages import CascadeConfig

if TYPE_CHECKING:
    import ray.data

logger = logging.getLogger(__name__)

CLIPS_PER_BATCH = 32
_BATCH_BYTES = 64 << 20
"""Decoded frames of one batch, which cross the object store together."""
_WORKER_BYTES = 5 << 29
"""Memory declared per worker: its decoder child, the frames of its batches, and the networks of a preset."""


@dataclass(frozen=True)
class EncodeResult:
    """Result of encoding, counted in clips; a video without a clip counts as one failed clip."""

    uri: str
    planned: int
    ok: int
    filtered: int
    """Clips that the policy of the clips table or `where` leaves out, or that lack a caption where others have one."""
    failed: int
    encoded_now: int
    seconds: float


def encode(
    input_uri: str,
    output_uri: str,
    config: CascadeConfig,
    autoencoder: str,
    captions: str | None = None,
    options: EncodeOptions | None = None,
    progress: Progress | None = None,
) -> EncodeResult:
    """Encode clips into a table of latents, or update the table.

    Args:
        input_uri: folder or manifest of videos, or a clips table.
        output_uri: folder of the table. An interrupted run continues.
        config: the cascade: clip length, frame rate, latent sizes.
        autoencoder: folder of the VAE, or of a model that holds it; for captions the text encoder lies beside it.
        captions: table with `video` and `caption`; None: `captions.*` in the input folder, if any.
        options: clips to encode, and use of the cluster.
        progress: display to use; None opens one for this call.

    Raises:
        UserError: invalid arguments, before any work; or no clip could be encoded.
        RuntimeError: a worker failed for a reason that is not a single clip's.
    """
    with shown(progress) as progress:
        started = time.perf_counter()
        options = options or EncodeOptions()
        job = prepare(input_uri, output_uri, config, autoencoder, captions, options)
        clips, num_unusable = _clips(job, options, progress)
        chosen = _chosen(clips, options)
        with Lease(job.output) as lease, Ledger(job.output, job.identity, lease) as ledger:
            fingerprint = Fingerprint(SCHEMA_VERSION, clips.fingerprint)
            ledger.plan(fingerprint.over(planned_clips(clips, chosen, job.corpus.has_captions)))
            lost = _lost_videos(job, clips)
            encoded_now = run_pending(ledger, _work(job, options), options.run, progress, lost)
            if encoded_now or not is_unchanged(ledger, fingerprint.value()):
                _publish(ledger, job, clips, options, fingerprint.value(), progress, lost)
            else:
                ledger.clean_up()
            counts = ledger.published()["counts"]
            write_report(job.output, job.encoders.load_autoencoder)
        filtered = clips.manifest["counts"]["rows"] - counts["planned"]
        return EncodeResult(
            uri=job.output,
            planned=counts["planned"] + filtered + num_unusable,
            ok=counts["ok"],
            filtered=filtered + counts["filtered"],
            failed=counts["failed"] + num_unusable,
            encoded_now=encoded_now,
            seconds=time.perf_counter() - started,
        )


def _clips(job: EncodeJob, options: EncodeOptions, progress: Progress) -> tuple[ClipsTable, int]:
    """Return the clips to encode, and the number of videos of this call that gave none."""
    if job.corpus.clips is not None:
        return job.corpus.clips, 0
    uri = storage.join(job.output, CLIPS_FOLDER)
    spec = clips_of_folder(job.config, options.decoder)
    result = ingest(job.corpus.uri, uri, IngestOptions(spec, run=options.run), job.captions, progress)
    return ClipsTable.open(uri), result.failed + result.filtered


def _chosen(clips: ClipsTable, options: EncodeOptions) -> str:
    """Return the SQL condition that selects the clips to encode."""
    conditions = []
    if not options.with_dropped:
        conditions.append("dropped_by = ''")
    if clips.has_captions:
        # A captioner may leave a clip without a caption.
        conditions.append("caption IS NOT NULL")
    if options.where is not None:
        conditions.append(options.where)
    return conjunction(*conditions) if conditions else "true"


def planned_clips(clips: ClipsTable, where: str, captioned: bool) -> Iterator[pa.RecordBatch]:
    """Yield clips as planned items; the item id includes the caption."""
    names = [name for name in clips.index_schema.names if name not in ("item_id", "shard", "row", "dropped_by")]
    for batch in clips.batches(names, where):
        ids = batch["clip_id"].to_pylist()
        if captioned:
            captions = batch["caption"].to_pylist()
            ids = [content_hash(one, caption) for one, caption in zip(ids, captions, strict=True)]
        columns = {"item_id": pa.array(ids, pa.string()), **{name: batch[name] for name in names}}
        yield pa.record_batch(columns)


def _work(job: EncodeJob, options: EncodeOptions) -> Work:
    task = job.task

    def graph(batches: "ray.data.Dataset", num_batches: int) -> tuple["ray.data.Dataset", Sequence[int]]:
        on_gpus = cluster.total().gpus > 0 or (cluster.may_grow() and _trains_on_gpus(job.config))
        if on_gpus:
            instead = "--set base.training.use_gpu=false, and the same for the other stages, encodes on CPUs"
            cluster.say_if_waiting("Encoding", cluster.Resources(cpus=1, gpus=options.encoders or 1), instead)
        share = shares(num_batches, _WORKER_BYTES, options.encoders, on_gpus)
        return two_steps(batches, decode_batch, EncodeActor, task, share)

    return Work("encode", "clips", BatchLimits(clips_per_batch(job)), graph, ("decode_s", "encode_s"))


def clips_per_batch(job: EncodeJob) -> int:
    """Return the clips of a batch whose decoded frames cross the object store together."""
    largest = max(size.height * size.width for size in job.spec.frame_sizes) / job.spec.size**2
    clip_bytes = job.spec.num_frames * int(sum(size**2 for size in job.task.pixel_sizes) * largest) * 3
    return max(1, min(CLIPS_PER_BATCH, _BATCH_BYTES // clip_bytes))


def _trains_on_gpus(config: CascadeConfig) -> bool:
    """Return whether the preset trains on GPUs, and so whether to wait for them on an autoscaling cluster."""
    return any(config.training_of(stage).use_gpu for stage in config.trainable_stages())


def _publish(
    ledger: Ledger,
    job: EncodeJob,
    clips: ClipsTable,
    options: EncodeOptions,
    input_fingerprint: str,
    progress: Progress,
    lost: Sequence[pa.RecordBatch],
) -> None:
    """Pack parts into shards and publish the table.

    Raises:
        UserError: no clip could be encoded.
    """
    counts = ledger.require_complete()
    if not counts["ok"]:
        ledger.write_outcomes(FAILED, ERRORS_NAME, lost)
        raise UserError(_nothing_encoded(ledger, counts))
    if counts["failed"]:
        logger.warning(
            "%d of %d gave no latents: see %s in %s", counts["failed"], counts["planned"], ERRORS_NAME, job.output
        )
    pack(ledger, options.run, progress)
    manifest = _manifest(ledger, job, clips, options, input_fingerprint)
    ledger.publish(manifest, map(_without_indices, ledger.index_rows()), lost)


def _lost_videos(job: EncodeJob, clips: ClipsTable) -> list[pa.RecordBatch]:
    """Return the videos that gave no clip; errors.parquet lists all losses of a folder."""
    if job.corpus.clips is not None:
        return []
    return [batch for name in (FILTERED_NAME, ERRORS_NAME) for batch in _outcomes(storage.join(clips.uri, name))]


def _outcomes(uri: str) -> list[pa.RecordBatch]:
    try:
        batches: list[pa.RecordBatch] = pq.read_table(pa.BufferReader(storage.read_bytes(uri))).to_batches()
    except (FileNotFoundError, pa.ArrowException) as error:
        manifest = storage.join(storage.parent(uri), MANIFEST_NAME)
        raise UserError(
            f"{uri!r} is gone or damaged: remove {manifest!r} and run the same command again; finished work is not "
            f"repeated."
        ) from error
    return batches


def _without_indices(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Drop the one long column, which the shards keep."""
    return batch.drop_columns(["frame_indices"])


def _manifest(
    ledger: Ledger, job: EncodeJob, clips: ClipsTable, options: EncodeOptions, input_fingerprint: str
) -> Mapping[str, Any]:
    return {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        **job.about,
        "num_frames": job.spec.num_frames,
        "fps": job.spec.fps,
        "latent_channels": job.config.autoencoder.model.latent_channels,
        "scaling_factor": job.encoders.scaling_factor,
        "has_captions": job.corpus.has_captions,
        "clips": {"uri": clips.uri, "fingerprint": clips.fingerprint, "where": options.where},
        "input_fingerprint": input_fingerprint,
        "facts": ledger.metrics(),
        "decoders": decoder_versions(),
    }


def _nothing_encoded(ledger: Ledger, counts: Mapping[str, int]) -> str:
    if not counts["planned"]:
        return "The policy of the clips table, or --where, leaves no clip that can be encoded: relax it."
    first = next(ledger.failures()).slice(0, 1).to_pylist()[0]
    return f"None of the {counts['planned']} clips could be encoded; of {first['uri']!r}: {first['error']}."
