"""What a report says, found section by section; one that fails is logged and left out."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from videogen import storage
from videogen.data.datasets.clips_table import KIND as CLIPS
from videogen.data.datasets.finished import FinishedTable
from videogen.data.tables.published import read_manifest
from videogen.data.tables.run_log import RunTrace, read_run, run_names
from videogen.reporting.reasons import Reason, read_reasons
from videogen.reporting.table.funnel import Funnel, clips_funnels, latents_funnels
from videogen.reporting.table.histograms import Histogram
from videogen.reporting.table.round_trips import RoundTrip, round_trips
from videogen.reporting.table.sheets import Picture, Place, read_originals, read_pictures
from videogen.reporting.table.survey import Survey, in_table_order, survey

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

logger = logging.getLogger(__name__)

_NUM_KEPT, _NUM_DROPPED, _NUM_DROPPED_IN_ALL = 24, 12, 96
"""Pictures of kept clips, of those that one rule drops, and of all dropped ones."""
_MAX_RUNS = 20
_Section = TypeVar("_Section")


@dataclass
class Contents:
    """Everything that page and JSON are made of."""

    uri: str
    manifest: Mapping[str, Any]
    survey: Survey = field(default_factory=Survey)
    funnels: Sequence[Funnel] = ()
    runs: Sequence[RunTrace] = ()
    """The latest, oldest first."""
    failed: Sequence[Reason] = ()
    filtered: Sequence[Reason] = ()
    pictures: Mapping[Place, Picture] = field(default_factory=dict)
    originals: Mapping[str, Picture] = field(default_factory=dict)
    """By clip_id: what the near duplicates among the pictures look like."""
    trips: Sequence[RoundTrip] = ()

    @property
    def kind(self) -> str:
        """What the rows are: "clips" or "latents"."""
        return str(self.manifest["kind"])

    @property
    def rules(self) -> Mapping[str, str]:
        """The policy: expressions by name."""
        rules: Mapping[str, str] = self.manifest.get("policy", {})
        return rules

    @property
    def num_bytes(self) -> int:
        """Size of the shards."""
        return sum(shard["bytes"] for shard in self.manifest["shards"])

    @property
    def last_run(self) -> RunTrace | None:
        """The latest run that did something, the one that is drawn."""
        return next((run for run in reversed(self.runs) if run.done and run.seconds > 0), None)

    @property
    def mean_psnr_db(self) -> float | None:
        """Mean over the round trips; None without any that lost something."""
        values = [trip.psnr_db for trip in self.trips if math.isfinite(trip.psnr_db)]
        return sum(values) / len(values) if values else None

    def numbers(self) -> dict[str, Any]:
        """Return the report as JSON: every number of the page, and names of what is pictured."""
        found = self.survey
        shown = {
            group: [self.pictures[p] for p in places if p in self.pictures] for group, places in found.sampled.items()
        }
        return {
            "kind": self.kind,
            "counts": dict(self.manifest["counts"]),
            "bytes": self.num_bytes,
            "rows_by_rule": found.groups,
            "seconds_by_rule": found.clip_s,
            "funnels": [asdict(funnel) for funnel in self.funnels],
            "histograms": [_histogram(one) for one in found.histograms],
            "constants": found.constants,
            "values": {name: dict(counter.most_common()) for name, counter in found.words.items()},
            "runs": [_run(run) for run in self.runs],
            "throughput": [list(astuple(sample)) for sample in (self.last_run.samples if self.last_run else ())],
            "failed": [reason._asdict() for reason in self.failed],
            "filtered": [reason._asdict() for reason in self.filtered],
            "pictured": {group: [picture.row["clip_id"] for picture in group_of] for group, group_of in shown.items()},
            "round_trips": [_trip(trip) for trip in self.trips],
            "mean_psnr_db": self.mean_psnr_db,
        }


def gather(table: FinishedTable, load_autoencoder: "Callable[[], AutoencoderKL] | None" = None) -> Contents:
    """Return what there is to say about a table; see `write_report`."""
    manifest = table.manifest
    rules = list(manifest.get("policy", {}))
    found = Contents(table.uri, manifest)
    num_dropped = min(_NUM_DROPPED, max(3, _NUM_DROPPED_IN_ALL // max(1, len(rules))))
    found.survey = _attempt("numbers", lambda: survey(table, rules, _NUM_KEPT, num_dropped), found.survey)
    found.funnels = _attempt("funnel", lambda: _funnels(manifest), found.funnels)
    found.runs = _attempt("runs", lambda: _runs(table.uri), found.runs)
    found.failed = _attempt("errors", lambda: _reasons(table, "errors.parquet"), found.failed)
    found.filtered = _attempt("filtered", lambda: _reasons(table, "filtered.parquet"), found.filtered)
    if found.kind == CLIPS:
        places = list(in_table_order(found.survey.sampled))
        found.pictures = _attempt("pictures", lambda: read_pictures(table, places), found.pictures)
        copies = [picture.row.get("duplicate_of") or "" for picture in found.pictures.values()]
        found.originals = _attempt("originals", lambda: read_originals(table, copies), found.originals)
    elif load_autoencoder is not None:
        loader = load_autoencoder
        found.trips = _attempt("round trips", lambda: round_trips(table.uri, loader), found.trips)
    return found


def _attempt(section: str, find: Callable[[], _Section], otherwise: _Section) -> _Section:
    try:
        return find()
    except Exception as error:  # noqa: BLE001 - one section the less; the others say as much as before
        said = " ".join(str(error).split())
        logger.warning("the report is without its %s: %s: %s", section, type(error).__name__, said)
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


def _reasons(table: FinishedTable, name: str) -> list[Reason]:
    return read_reasons(storage.join(table.uri, name))


def _histogram(histogram: Histogram) -> dict[str, Any]:
    return {**asdict(histogram), "kept": histogram.kept.tolist(), "dropped": histogram.dropped.tolist()}


def _run(run: RunTrace) -> dict[str, Any]:
    told = {name: value for name, value in asdict(run).items() if name != "samples"}
    return told | {"seconds": run.seconds, "done": run.done}


def _trip(trip: RoundTrip) -> dict[str, Any]:
    told = {name: value for name, value in asdict(trip).items() if name != "pictures"}
    return told | {"psnr_db": trip.psnr_db if math.isfinite(trip.psnr_db) else None}
