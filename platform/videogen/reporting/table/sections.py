"""Sections of the table report page: histograms, categories, reconstructions, runs, failure reasons."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from videogen.reporting import formatting
from videogen.reporting.charts import Mark, draw_histogram, draw_progress, draw_rate
from videogen.reporting.column_statistics import Histogram
from videogen.reporting.formatting import column_label
from videogen.reporting.page import data_uri
from videogen.reporting.run_log import DONE, STOPPED, RunTrace
from videogen.reporting.table.contents import Contents
from videogen.reporting.table.reconstructions import Reconstruction
from videogen.reporting.table.survey import Survey

_COMPARISON = re.compile(r"\b([A-Za-z_]\w*)\s*(>=|<=|<|>)\s*(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\b")
_UNITS = {
    "width": "pixels",
    "height": "pixels",
    "fps": "frames a second",
    "video_fps": "frames a second",
    "video_frames": "frames",
    "video_duration_s": "seconds",
}
_MAX_CATEGORIES = 6
_MAX_REASONS = 20


# --- columns -----------------------------------------------------------------------------------------------------


def histograms(contents: Contents) -> list[dict[str, Any]]:
    """Return the histograms: scores first, then properties of the videos."""
    from videogen.data.curation.scores import SCORES

    shown = []
    for histogram in contents.survey.histograms:
        score = SCORES.get(histogram.name)
        shown.append(
            {
                "name": histogram.name,
                "unit": score.unit if score else _UNITS.get(histogram.name, ""),
                "about": score.description if score else "",
                "svg": draw_histogram(histogram, _thresholds(histogram.name, contents.rules)),
                "note": _note(histogram),
                "is_score": score is not None or histogram.name in contents.manifest.get("scores", ()),
            }
        )
    return sorted(shown, key=lambda one: not one["is_score"])


def _thresholds(column: str, rules: Mapping[str, str]) -> list[Mark]:
    """Return the numbers that rules compare the column with, found in the text of the expressions."""
    found = [match for text in rules.values() for match in _COMPARISON.finditer(text) if match[1] == column]
    return [Mark(float(match[3]), f"{match[2]} {match[3]}") for match in found]


def _note(histogram: Histogram) -> str:
    least, median, greatest = map(formatting.short, (histogram.least, histogram.median, histogram.greatest))
    note = f"least {least}, median {median}, greatest {greatest}"
    if histogram.greatest > histogram.edges[-1] or histogram.least < histogram.edges[0]:
        note += "; the outermost bars include all values beyond"
    return note + (f"; {formatting.count(histogram.missing)} unknown" if histogram.missing else "")


def composition(survey: Survey) -> dict[str, Any]:
    """Return the most frequent values of each categorical column, and the values that all rows `share`."""
    total = max(1, survey.num_rows)
    rows: list[dict[str, Any]] = []
    shared: list[tuple[str, str]] = []
    for name, counter in survey.values.items():
        if len(counter) == 1:
            shared.append((column_label(name), next(iter(counter))))
            continue
        common = counter.most_common(_MAX_CATEGORIES)
        rest = sum(counter.values()) - sum(number for _, number in common)
        values = [*common, *([(f"{len(counter) - len(common)} others", rest)] if rest else [])]
        cells = [
            {"value": value, "share": formatting.percent(n, total), "width": 100 * n / total} for value, n in values
        ]
        rows.append({"name": column_label(name), "cells": cells})
    for name, number in survey.constants.items():
        shared.append((column_label(name), f"{number:g} {_UNITS.get(name, '')}".strip()))
    return {"rows": rows, "shared": shared}


def reconstructions(found: Sequence[Reconstruction]) -> list[dict[str, Any]]:
    """Return the pictures and labels of reconstructions."""
    return [
        {
            "pictures": [data_uri(picture, "image/jpeg") for picture in one.pictures],
            "psnr": f"{one.psnr_db:.2f} dB" if math.isfinite(one.psnr_db) else "lossless",
            "std": f"{one.latent_std:.2f}",
            "source": one.source.rsplit("/", 1)[-1],
            "frame": one.frame,
        }
        for one in found
    ]


def reason_tables(contents: Contents) -> list[dict[str, Any]]:
    """Return the tables of reasons for failed and for filtered inputs, without empty ones."""
    groups = (
        ("Failed", "errors.parquet", contents.failed),
        ("Filtered: no clip was kept", "filtered.parquet", contents.filtered),
    )
    return [
        {
            "title": title,
            "file": file,
            "total": sum(reason.num_inputs for reason in reasons),
            "rows": reasons[:_MAX_REASONS],
            "num_hidden": sum(reason.num_inputs for reason in reasons[_MAX_REASONS:]),
        }
        for title, file, reasons in groups
        if reasons
    ]


# --- runs --------------------------------------------------------------------------------------------------------


def run_view(run: RunTrace | None) -> dict[str, Any] | None:
    """Return the charts of a run and the work of its operators."""
    if run is None:
        return None
    return {
        "trace": run,
        "rate": draw_rate(run.samples, run.unit),
        "progress": draw_progress(run.samples, run.unit),
        "mean": formatting.rate(run.done, run.seconds),
        "per_time": formatting.per(formatting.rate_unit(run.done / run.seconds)[0]),
        "operators": _operators(run),
    }


def _operators(run: RunTrace) -> list[dict[str, Any]]:
    whole = sum(run.operator_s.values())
    if not whole:
        return []
    return [
        {
            "name": column_label(name),
            "duration": formatting.duration(seconds),
            "share": formatting.percent(seconds, whole),
            "width": 100 * seconds / whole,
            "each": f"{formatting.short_duration(seconds / max(run.done, 1))} each",
        }
        for name, seconds in run.operator_s.items()
    ]


def run_row(run: RunTrace) -> dict[str, Any]:
    """Return one row of the table of runs."""
    count = formatting.count
    last = run.samples[-1] if run.samples else None
    return {
        "started": run.started_at.replace("T", " ").removesuffix("+00:00"),
        "step": run.step,
        "hardware": _hardware(run),
        "duration": formatting.duration(run.seconds),
        "done": f"{count(run.done)} of {count(run.total)} {run.unit}",
        "lost": f"{count(last.filtered)} / {count(last.failed)}" if last else "",
        "rate": formatting.rate(run.done, run.seconds),
        "outcome": {DONE: "done", STOPPED: "stopped"}.get(run.status, "killed"),
        "error": run.error,
    }


def _hardware(run: RunTrace) -> str:
    """Return the resources of the cluster when the run started, e.g. "8 CPUs, 1 GPU"."""
    named = [(run.settings.get(name, 0), word) for name, word in (("cpus", "CPU"), ("gpus", "GPU"))]
    return ", ".join(f"{number:g} {word}{'s' if number != 1 else ''}" for number, word in named if number)
