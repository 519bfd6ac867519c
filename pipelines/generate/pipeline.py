"""Batch generation pipeline: a prompts table to mp4 files and a manifest.

    prompts.parquet -> text -> reference -> base -> upsample -> interpolate -> decode + mp4 -> manifest.parquet

Ray Data streams the prompts through one actor pool per stage. The last pool writes the videos itself, so frames never
cross the object store. A failed row carries its error to the manifest and affects no other row. Rows with a finished
video are skipped, so the same call continues an interrupted run.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines import cluster
from pipelines.cluster.progress import Progress
from pipelines.generate.fingerprint import model_fingerprint
from pipelines.generate.manifest import Row, finished_rows, write_manifest
from pipelines.generate.model import read_config
from pipelines.generate.payload import needed_after
from pipelines.generate.prompts import Request, parquet_files, present_columns, read_requests
from pipelines.generate.workers import DecodeAndWriteActor, Prepare, StageActor, StageSpec
from videogen import storage
from videogen.stages import CascadeConfig

if TYPE_CHECKING:
    import ray.data

_MANIFEST_EVERY_S = 5.0
_MAX_WORKERS = 64


@dataclass(frozen=True)
class GenerateOptions:
    """Use of the cluster, and sampling overrides."""

    overrides: tuple[str, ...] = ()
    batch_size: int = 4
    """Rows that a stage works on at once."""
    workers: int = 1
    """Actors of each stage; on a cluster that may grow, the least."""
    gpus_per_worker: float = 0.0
    """GPUs of each actor; above 0 the stages run on `cuda`."""
    save_intermediates: bool = False


@dataclass(frozen=True)
class GenerateResult:
    """Result of a run."""

    manifest_uri: str
    rows: list[Row] = field(repr=False)
    """All rows of the manifest, in the order of the prompts."""
    num_skipped: int
    seconds: float

    @property
    def num_failed(self) -> int:
        """Rows without a video."""
        return sum(row["status"] != "ok" for row in self.rows)


@dataclass(frozen=True)
class _Plan:
    """Validated settings, known before Ray starts."""

    model: str
    prompts: str
    output: str
    config: CascadeConfig
    requests: Sequence[Request]
    maker: str
    finished: dict[str, Row]
    options: GenerateOptions


def generate(model: str, prompts: str, output: str, options: GenerateOptions | None = None) -> GenerateResult:
    """Generate a video for every row of a prompts table.

    Args:
        model: URI of a model folder.
        prompts: URI of a parquet file (or a folder of them); columns as in `pipelines.generate.prompts.COLUMNS`.
        output: URI of the folder for `videos/<id>.mp4`, `manifest.parquet` and, if asked, `intermediates/`.
        options: use of the cluster, and sampling overrides.

    Raises:
        UserError: an invalid argument or row, before any work.
    """
    started = time.perf_counter()
    plan = _plan(model, prompts, output, options or GenerateOptions())
    rows = dict(plan.finished)

    def write() -> str:
        return write_manifest(plan.output, plan.requests, rows, plan.maker)

    if len(rows) < len(plan.requests):
        cluster.connect()
        with Progress() as progress, progress.task("generate", total=len(plan.requests), unit="videos") as task:
            task.update(completed=len(rows), detail="starting: every stage loads its model")
            written = time.perf_counter()
            try:
                for row in _results(plan):
                    rows[row["id"]] = row
                    task.update(completed=task.completed + 1, detail="")
                    if time.perf_counter() - written > _MANIFEST_EVERY_S:
                        write()
                        written = time.perf_counter()
            finally:
                # Also when interrupted: listed videos are not made again.
                write()
    uri = write()
    listed = [rows[request.id] for request in plan.requests]
    return GenerateResult(uri, listed, len(plan.finished), time.perf_counter() - started)


def _plan(model: str, prompts: str, output: str, options: GenerateOptions) -> _Plan:
    model, prompts, output = (storage.absolute(uri) for uri in (model, prompts, output))
    storage.require_writable(output, "Output")
    requests = read_requests(prompts)
    config = read_config(model, options.overrides)
    maker = model_fingerprint(model, [config.model_dump_json()])
    finished = finished_rows(output, requests, maker, options.save_intermediates)
    return _Plan(model, prompts, output, config, requests, maker, finished, options)


def _results(plan: _Plan) -> Iterator[Row]:
    """Yield manifest rows as videos finish."""
    for batch in _graph(plan).iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from batch.to_pylist()


def _graph(plan: _Plan) -> "ray.data.Dataset":
    """Build the graph: read, prepare, and one actor pool per stage."""
    import ray
    import ray.data

    from videogen.stages import stage_class, stage_definition

    options, names = plan.options, plan.config.stage_names()
    num_actors = len(names) * options.workers
    cpus = _cpus_of_actor(num_actors)
    resources: dict[str, Any] = {"num_cpus": cpus, "num_gpus": options.gpus_per_worker}
    if options.gpus_per_worker and (selector := cluster.pool("encode")):
        resources["label_selector"] = selector
    if cluster.may_grow():
        takes = cluster.Resources(1 + num_actors * cpus, num_actors * options.gpus_per_worker)
        cluster.say_if_waiting("Generating", takes, "use fewer --workers or a smaller --gpus")
        batches = math.ceil((len(plan.requests) - len(plan.finished)) / options.batch_size)
        most = max(options.workers, min(batches, _MAX_WORKERS))
        pool = ray.data.ActorPoolStrategy(min_size=options.workers, max_size=most)
    else:
        pool = ray.data.ActorPoolStrategy(size=options.workers)
    files = parquet_files(plan.prompts)
    filesystem, _ = storage.arrow_filesystem(plan.prompts)
    dataset = ray.data.read_parquet(
        [storage.arrow_filesystem(file)[1] for file in files],
        filesystem=filesystem,
    ).select_columns(present_columns(files))
    dataset = dataset.map_batches(
        Prepare(frozenset(plan.finished)).__call__,
        batch_size=options.batch_size,
        batch_format="pyarrow",
        zero_copy_batch=True,
    )
    # Small blocks let all stages work at the same time.
    dataset = dataset.repartition(target_num_rows_per_block=options.batch_size)
    later = needed_after([stage_class(name).consumes for name in names])
    for name, needed in zip(names, later, strict=True):
        spec = StageSpec(
            name=name,
            model=plan.model,
            config=plan.config,
            device="cuda" if options.gpus_per_worker else "cpu",
            needed_after=frozenset(needed),
            keep=options.save_intermediates and name != names[-1] and stage_definition(name).preview is not None,
        )
        last = name == names[-1]
        dataset = dataset.map_batches(
            DecodeAndWriteActor if last else StageActor,
            fn_constructor_args=(spec, plan.output, plan.config.output_fps) if last else (spec,),
            batch_size=options.batch_size,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=pool,
            **resources,
        )
    return dataset


def _cpus_of_actor(num_actors: int) -> float:
    """Return the CPUs of each actor such that all pools fit at once; a pool that cannot start blocks the others."""
    cpus = cluster.total().cpus
    if not cpus and cluster.may_grow():
        return 1.0  # only an idle head node so far; requesting zero CPUs would place all actors on it
    spare = max(0.0, (cpus or 1.0) - 1.0)  # one task reads in parallel
    return min(1.0, math.floor(1e4 * spare / num_actors) / 1e4)
