"""Encoding: a folder of videos in, a table of latents out.

    videos -> plan: clips, in units -> decode (CPU tasks) -> VAE + text encoder (actor pool) -> shards -> manifest

A unit of clips is the step that is done or not: its shard is named by its content, written whole, and skipped when it
is already there. So the same call again continues an interrupted one, and does nothing when all is done. Every clip
ends as a row or in `errors.parquet`; one bad video costs its own clips and nothing else.
"""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines import cluster
from pipelines._encode_unit import EncodeUnit, Unit, decode_unit
from pipelines._encoders import Encoders, find_encoders
from pipelines.progress import Progress
from videogen import storage
from videogen.config import CascadeConfig
from videogen.data.clips import (
    CAPTIONS_NAME,
    Clip,
    ClipSpec,
    Failure,
    Plan,
    Video,
    content_hash,
    list_videos,
    plan_clips,
    read_captions,
)
from videogen.data.latents import MANIFEST_NAME, SCHEMA_VERSION, read_shard_record, write_errors
from videogen.errors import UserError

if TYPE_CHECKING:
    import ray.data

logger = logging.getLogger(__name__)

_CLIPS_PER_UNIT = 32
_UNIT_BYTES = 64 << 20
"""Decoded frames of one unit, which cross the object store together."""
_DECODE_CPUS, _ENCODE_CPUS = 0.25, 0.75
"""Without GPUs: one encoder a core, and decoders in the gaps that it leaves."""
_UNITS_WORTH_AN_ENCODER = 4
_MAX_ENCODERS = 256


@dataclass(frozen=True)
class EncodeOptions:
    """How an encoding is spread over the cluster."""

    encoders: int | None = None
    """Actors with the VAE; None: one for each GPU of the cluster, or without GPUs one for each free core, and more as
    the cluster grows."""


@dataclass(frozen=True)
class EncodeResult:
    """What an encoding leaves behind; planned = ok + failed, in clips."""

    uri: str
    planned: int
    ok: int
    failed: int
    encoded_now: int
    seconds: float


@dataclass(frozen=True)
class Job:
    """Everything that is known before any video is opened."""

    videos: Sequence[Video]
    captions: Mapping[str, str] | None
    spec: ClipSpec
    config: CascadeConfig
    encoders: Encoders
    output: str

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the latents of a clip, beside the clip itself."""
        return {
            "schema_version": SCHEMA_VERSION,
            "encoder_fingerprint": self.encoders.autoencoder_fingerprint,
            "text_encoder_fingerprint": self.encoders.text_encoder_fingerprint,
            "latent_sizes": list(self.config.latent_sizes),
            "clip": self.spec.as_dict(),
        }

    @property
    def fingerprint(self) -> str:
        """Hash of all input: the same fingerprint means the same table."""
        corpus = [[video.uri, video.version, (self.captions or {}).get(video.path)] for video in self.videos]
        return content_hash(self.identity, corpus)

    @property
    def manifest_uri(self) -> str:
        """Where the manifest is or will be."""
        return storage.join(self.output, MANIFEST_NAME)


def encode(
    input_uri: str,
    output_uri: str,
    config: CascadeConfig,
    autoencoder: str,
    captions: str | None = None,
    options: EncodeOptions | None = None,
    progress: Progress | None = None,
) -> EncodeResult:
    """Encode a folder of videos into a table of latents.

    Args:
        input_uri: folder of videos, searched recursively.
        output_uri: folder of the table. Continues what an earlier call with the same input has begun there.
        config: the cascade that the latents are for: clip length, rate, sizes.
        autoencoder: folder of the VAE, or of a model that holds it; for captions the text encoder lies beside it.
        captions: parquet table with `video` and `caption`; None: `captions.parquet` in the input folder, if any.
        options: how the work is spread.
        progress: where to show it; None shows it for this call alone.

    Raises:
        UserError: before any work, for anything that is wrong with the arguments; or if no clip could be encoded.
    """
    started = time.perf_counter()
    job = prepare(input_uri, output_uri, config, autoencoder, captions)
    manifest = _read_manifest(job)
    num_encoded = 0
    if manifest is None:
        plan = _plan(job)
        units = make_units(plan.clips, job)
        records = _finished_records(job, units)
        open_units = [unit for unit in units if unit.unit_id not in records]
        for record in _run(open_units, job, options or EncodeOptions(), progress):
            records[record["unit_id"]] = record
            num_encoded += record["rows"]
        manifest = _finish(job, plan, [records[unit.unit_id] for unit in units])
    counts = manifest["counts"]
    return EncodeResult(job.output, **counts, encoded_now=num_encoded, seconds=time.perf_counter() - started)


def prepare(
    input_uri: str, output_uri: str, config: CascadeConfig, autoencoder: str, captions: str | None = None
) -> Job:
    """Check every argument of `encode` within seconds, and find the videos, captions and networks.

    Raises:
        UserError: in one sentence, for whatever is wrong first.
    """
    output = storage.absolute(output_uri)
    videos, described = read_corpus(input_uri, captions)
    encoders = find_encoders(autoencoder, config, captioned=described is not None)
    storage.require_writable(output, "Output")
    return Job(videos, described, ClipSpec.of(config), config, encoders, output)


def read_corpus(input_uri: str, captions: str | None = None) -> tuple[list[Video], dict[str, str] | None]:
    """Return the videos of a corpus and their captions by path, None for an uncaptioned corpus.

    Args:
        input_uri: folder of videos.
        captions: parquet table; None: `captions.parquet` in the folder, if it is there.

    Raises:
        UserError: in one sentence, for whatever is wrong first.
    """
    input_uri = storage.absolute(input_uri)
    videos = list_videos(input_uri)
    if captions is None and storage.exists(storage.join(input_uri, CAPTIONS_NAME)):
        captions = storage.join(input_uri, CAPTIONS_NAME)
    return videos, None if captions is None else read_captions(storage.absolute(captions), videos)


def find_autoencoder(output_uri: str, config: CascadeConfig) -> str | None:
    """Return the autoencoder to use where none is named: the preset's, one trained earlier, or that of a model nearby.

    None means that the preset has to train its own first.
    """
    if config.autoencoder.pretrained:
        return config.autoencoder.pretrained
    output = storage.absolute(output_uri)
    above = storage.parent(output)
    for folder in (output, storage.join(above, "model"), storage.join(storage.parent(above), "model")):
        if storage.exists(storage.join(folder, "autoencoder", "config.json")):
            return storage.join(folder, "autoencoder")
    return None


def _read_manifest(job: Job) -> dict[str, Any] | None:
    """Return the manifest if it is of exactly this input; None if there is work to do.

    Raises:
        UserError: the folder holds latents of another encoder.
    """
    if not storage.exists(job.manifest_uri):
        return None
    manifest = storage.read_json(job.manifest_uri)
    theirs = manifest.get("encoder_fingerprint")
    if theirs != job.encoders.autoencoder_fingerprint:
        raise UserError(
            f"Output {job.output!r} holds latents of another encoder ({theirs}) than the "
            f"given autoencoder ({job.encoders.autoencoder_fingerprint}): give another --output, or remove the old one."
        )
    return manifest if manifest.get("input_fingerprint") == job.fingerprint else None


def _plan(job: Job) -> Plan:
    plan = plan_clips(job.videos, job.spec, job.captions)
    if not plan.clips:
        write_errors(job.output, plan.failures)
        first = plan.failures[0]
        raise UserError(
            f"None of the {len(job.videos)} videos gives a clip of {job.spec.num_frames} frames; of {first.uri!r}: "
            f"{first.error}."
        )
    return plan


def make_units(clips: Sequence[Clip], job: Job) -> list[Unit]:
    """Group clips, in their order, into units of equal size; the same clips always give the same units."""
    clip_bytes = sum((size * job.config.vae_scale_factor) ** 2 for size in job.config.latent_sizes) * 3
    num_clips = max(1, min(_CLIPS_PER_UNIT, _UNIT_BYTES // (clip_bytes * job.spec.num_frames)))
    units = []
    for start in range(0, len(clips), num_clips):
        part = tuple(clips[start : start + num_clips])
        unit_id = content_hash(job.identity, [[clip.clip_id, clip.caption] for clip in part])
        units.append(Unit(unit_id, part))
    return units


def _finished_records(job: Job, units: Sequence[Unit]) -> dict[str, dict[str, Any]]:
    """Return the records of units whose shards an earlier run has written."""
    folder = storage.join(job.output, "shards")
    present = {uri.rsplit("/", 1)[-1] for uri in storage.list_files(folder, [".parquet"])}
    records = {}
    for unit in units:
        if unit.shard_name.rsplit("/", 1)[-1] in present:
            rows, num_bytes, failures = read_shard_record(storage.join(job.output, unit.shard_name))
            records[unit.unit_id] = {
                "unit_id": unit.unit_id,
                "rows": rows,
                "bytes": num_bytes,
                "failures": [vars(failure) for failure in failures],
            }
    return records


def _run(
    units: Sequence[Unit], job: Job, options: EncodeOptions, progress: Progress | None
) -> Iterator[dict[str, Any]]:
    """Encode units on the cluster; yield the record of each as its shard is committed."""
    if not units:
        return
    if progress is None:
        with Progress() as progress:
            yield from _run(units, job, options, progress)
        return
    cluster.connect()
    sizes = {unit.unit_id: len(unit.clips) for unit in units}
    with progress.task("encode", total=sum(sizes.values()), unit="clips") as task:
        for row in _dataset(units, job, options).iter_rows():
            task.advance(sizes[row["unit_id"]])
            yield {**row, "failures": json.loads(row["failures"])}


def _dataset(units: Sequence[Unit], job: Job, options: EncodeOptions) -> "ray.data.Dataset":
    """Return the Ray Data graph; every row is a unit, and one unit in is one unit out."""
    import ray
    import ray.data

    factor = job.config.vae_scale_factor
    num_gpus = int(cluster.total().gpus)
    on_gpus = num_gpus > 0 or (cluster.may_grow() and _trains_on_gpus(job.config))
    if on_gpus:
        instead = "--set base.training.use_gpu=false, and the same for the other stages, encodes on CPUs"
        cluster.say_if_waiting("Encoding", cluster.Resources(cpus=1, gpus=options.encoders or 1), instead)
    num_free = num_gpus or max(1, int(ray.available_resources().get("CPU", 1)))
    # An encoder takes as long to start as to encode a few units.
    most_useful = max(1, len(units) // _UNITS_WORTH_AN_ENCODER)
    size = options.encoders or min(num_free, most_useful)
    # An autoscaler starts with nothing: what is there now is the least, not the most.
    grows = cluster.may_grow() and options.encoders is None
    pool = ray.data.ActorPoolStrategy(
        min_size=size, max_size=max(size, min(most_useful, _MAX_ENCODERS)) if grows else size
    )
    source = ray.data.from_items([unit.as_row() for unit in units], override_num_blocks=len(units))
    decoded = source.map_batches(
        decode_unit,
        fn_args=([size * factor for size in job.config.latent_sizes],),
        batch_format="pyarrow",
        batch_size=1,
        num_cpus=1 if on_gpus else _DECODE_CPUS,
    )
    return decoded.map_batches(
        EncodeUnit,
        fn_constructor_args=(job.encoders, job.config.latent_sizes, factor, job.output),
        batch_format="pyarrow",
        batch_size=1,
        compute=pool,
        num_cpus=1 if on_gpus else _ENCODE_CPUS,
        num_gpus=1 if on_gpus else None,
    )


def _trains_on_gpus(config: CascadeConfig) -> bool:
    """Tell whether the preset is one for GPUs; where none runs yet, nothing else says whether to wait for one."""
    return any(config.stage_config(stage).training.use_gpu for stage in config.trainable_stages())


def _finish(job: Job, plan: Plan, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Write the errors table, then the manifest, and return it.

    Raises:
        UserError: not a single clip could be encoded.
    """
    failures = [*plan.failures, *(Failure(**failure) for record in records for failure in record["failures"])]
    write_errors(job.output, failures)
    counts = {
        "planned": len(plan.clips) + len(plan.failures),
        "ok": sum(record["rows"] for record in records),
        "failed": len(failures),
    }
    if counts["planned"] != counts["ok"] + counts["failed"]:
        raise RuntimeError(
            f"rows in and out of {job.output!r} do not add up: {counts}; remove its shards and encode again"
        )
    if not counts["ok"]:
        raise UserError(
            f"None of the {counts['planned']} clips could be encoded; of {failures[0].uri!r}: {failures[0].error}."
        )
    if failures:
        logger.warning(
            "%d of %d gave no latents: see errors.parquet in %s", len(failures), counts["planned"], job.output
        )
    manifest = {
        **job.identity,
        "input_fingerprint": job.fingerprint,
        "num_frames": job.spec.num_frames,
        "fps": job.spec.fps,
        "latent_channels": job.config.autoencoder.model.latent_channels,
        "scaling_factor": job.encoders.scaling_factor,
        "has_captions": job.captions is not None,
        "counts": counts,
        "shards": [
            {"name": Unit(record["unit_id"], ()).shard_name, "rows": record["rows"], "bytes": record["bytes"]}
            for record in records
            if record["rows"]
        ],
    }
    storage.write_json(job.manifest_uri, manifest)
    return manifest
