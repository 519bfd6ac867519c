"""Report contents of a table, gathered section by section; a section that fails is logged and left out."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from videogen import storage
from videogen.data.datasets.clips_schema import KIND as CLIPS
from videogen.data.tables import PublishedTable, Row, read_manifest
from videogen.reporting.column_statistics import Histogram
from videogen.reporting.contact_sheet import Place, read_originals, read_rows
from videogen.reporting.run_log import RunTrace, read_run, run_names
from videogen.reporting.table.funnel import Funnel, clips_funnels, latents_funnels
from videogen.reporting.table.reasons import Reason, read_reasons
from videogen.reporting.table.reconstructions import Reconstruction, reconstruct
from videogen.reporting.table.survey import Survey, survey

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

logger = logging.getLogger(__name__)

_NUM_KEPT, _NUM_DROPPED, _NUM_DROPPED_IN_TOTAL = 24, 12, 96
"""Maximum number of pictures of kept clips, of clips that one rule drops, and of all dropped clips."""
_MAX_RUNS = 20
_Section = TypeVar("_Section")


@dataclass
class Contents:
    """Source of the page and of the JSON file."""

    uri: str
    manifest: Mapping[str, Any]
    survey: Survey = field(default_factory=Survey)
    funnels: Sequence[Funnel] = ()
    runs: Sequence[RunTrace] = ()
    """The latest runs, oldest first."""
    failed: Sequence[Reason] = ()
    filtered: Sequence[Reason] = ()
    pictures: Mapping[Place, Row] = field(default_factory=dict)
    """The sampled rows, with thumbnails."""
    originals: Mapping[str, Row] = field(default_factory=dict)
    """By clip_id: the clips that near-duplicates among the pictures duplicate."""
    reconstructions: Sequence[Reconstruction] = ()

    @property
    def kind(self) -> str:
        """Kind of the rows: "clips" or "latents"."""
        return str(self.manifest["kind"])

    @property
    def rules(self) -> Mapping[str, str]:
        """Policy: expressions by name."""
        rules: Mapping[str, str] = self.manifest.get("policy", {})
        return rules

    @property
    def num_bytes(self) -> int:
        """Size of the shards."""
        return sum(shard["bytes"] for shard in self.manifest["shards"])

    @property
    def last_run(self) -> RunTrace | None:
        """Latest run that finished at least one item; its throughput is drawn."""
        return next((run for run in reversed(self.runs) if run.done and run.seconds > 0), None)

    @property
    def mean_psnr_db(self) -> float | None:
        """Mean over the lossy reconstructions; None if there is none."""
        values = [one.psnr_db for one in self.reconstructions if math.isfinite(one.psnr_db)]
        return sum(values) / len(values) if values else None

    def pictured(self) -> dict[str, list[Row]]:
        """Return the rows with a picture, by the rule that drops them."""
        return {
            group: [self.pictures[place] for place in places if place in self.pictures]
            for group, places in self.survey.sampled.items()
        }

    def numbers(self) -> dict[str, Any]:
        """Return the report as JSON: every number of the page, and the IDs of the pictured clips."""
        found = self.survey
        return {
            "kind": self.kind,
            "counts": dict(self.manifest["counts"]),
            "bytes": self.num_bytes,
            "rows_by_rule": found.groups,
            "seconds_by_rule": found.seconds,
            "funnels": [asdict(funnel) for funnel in self.funnels],
            "histograms": [_histogram_json(histogram) for histogram in found.histograms],
            "constants": found.constants,
            "values": {name: dict(counter.most_common()) for name, counter in found.values.items()},
            "runs": [_run_json(run) for run in self.runs],
            "throughput": [list(astuple(sample)) for sample in (self.last_run.samples if self.last_run else ())],
            "failed": [reason._asdict() for reason in self.failed],
            "filtered": [reason._asdict() for reason in self.filtered],
            "pictured": {group: [row["clip_id"] for row in rows] for group, rows in self.pictured().items()},
            "reconstructions": [_reconstruction_json(one) for one in self.reconstructions],
            "mean_psnr_db": self.mean_psnr_db,
        }


def gather(table: PublishedTable, load_autoencoder: "Callable[[], AutoencoderKL] | None" = None) -> Contents:
    """Return the contents of a table's report; see `write_report`."""
    manifest = table.manifest
    rules = list(manifest.get("policy", {}))
    found = Contents(table.uri, manifest)
    num_dropped = min(_NUM_DROPPED, max(3, _NUM_DROPPED_IN_TOTAL // max(1, len(rules))))
    found.survey = _attempt("numbers", lambda: survey(table, rules, _NUM_KEPT, num_dropped), found.survey)
    found.funnels = _attempt("funnel", lambda: _funnels(manifest), found.funnels)
    found.runs = _attempt("runs", lambda: _runs(table.uri), found.runs)
    found.failed = _attempt("errors", lambda: _reasons(table, "errors.parquet"), found.failed)
    found.filtered = _attempt("filtered", lambda: _reasons(table, "filtered.parquet"), found.filtered)
    if found.kind == CLIPS:
        places = [place for group in found.survey.sampled.values() for place in group]
        found.pictures = _attempt("pictures", lambda: read_rows(table, places), found.pictures)
        copies = [row.get("duplicate_of") or "" for row in found.pictures.values()]
        found.originals = _attempt("originals", lambda: read_originals(table, copies), found.originals)
    elif load_autoencoder is not None:
        loader = load_autoencoder
        found.reconstructions = _attempt(
            "reconstructions", lambda: reconstruct(table.uri, loader), found.reconstructions
        )
    return found


def _attempt(section: str, find: Callable[[], _Section], otherwise: _Section) -> _Section:
    try:
        return find()
    except Exception as error:  # noqa: BLE001 - the other sections do not depend on this one
        reason = " ".join(str(error).split())
        logger.warning("the report is without its %s: %s: %s", section, type(error).__name__, reason)
        return otherwise


def _funnels(manifest: Mapping[str, Any]) -> list[Funnel]:
    if manifest["kind"] == CLIPS:
        return clips_funnels(manifest)
    clips = read_manifest(manifest["clips"]["uri"]) or {}
    return latents_funnels(manifest, clips.get("counts", {}).get("rows"))


def _runs(uri: str) -> list[RunTrace]:
    traces = []
    for name in run_names(uri)[-_MAX_RUNS:]:
        try:
            traces.append(read_run(uri, name))
        except (OSError, ValueError) as error:
            logger.info("%s", error)
    return traces


def _reasons(table: PublishedTable, name: str) -> list[Reason]:
    return read_reasons(storage.join(table.uri, name))


def _histogram_json(histogram: Histogram) -> dict[str, Any]:
    return {**asdict(histogram), "kept": histogram.kept.tolist(), "dropped": histogram.dropped.tolist()}


def _run_json(run: RunTrace) -> dict[str, Any]:
    values = {name: value for name, value in asdict(run).items() if name != "samples"}
    return values | {"seconds": run.seconds, "done": run.done}


def _reconstruction_json(one: Reconstruction) -> dict[str, Any]:
    values = {name: value for name, value in asdict(one).items() if name != "pictures"}
    return values | {"psnr_db": one.psnr_db if math.isfinite(one.psnr_db) else None}
