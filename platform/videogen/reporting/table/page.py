"""From the contents of a report to its page. All values pass through the template, which escapes them."""

import base64
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import videogen
from videogen import storage
from videogen.data.datasets.clips_table import KIND as CLIPS
from videogen.data.tables.run_log import DONE, STOPPED, RunTrace
from videogen.reporting.table import words
from videogen.reporting.table.charts import Mark, draw_histogram, draw_progress, draw_rate
from videogen.reporting.table.contents import Contents
from videogen.reporting.table.histograms import Histogram
from videogen.reporting.table.sheets import Picture
from videogen.reporting.table_summary import in_bytes

_TEMPLATES = Path(__file__).parent / "templates"
_SHARED_TEMPLATES = Path(videogen.__file__).parent / "reporting" / "cascade" / "templates"
"""Folder of the style sheet that all pages share."""
_COMPARISON = re.compile(r"\b([A-Za-z_]\w*)\s*(>=|<=|<|>)\s*(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\b")
_UNITS = {
    "width": "pixels",
    "height": "pixels",
    "fps": "frames a second",
    "video_fps": "frames a second",
    "video_frames": "frames",
    "video_duration_s": "seconds",
}
_MAX_WORDS = 6
_MAX_REASONS = 20


def render(contents: Contents) -> str:
    """Return the page."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([_TEMPLATES, _SHARED_TEMPLATES]),
        # The style sheets are included as they are.
        autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": words.count, "plain": words.plain, "duration": words.duration}
    return environment.get_template("table.html.j2").render(
        contents=contents,
        manifest=contents.manifest,
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        is_clips=contents.kind == CLIPS,
        share=words.share,
        tiles=_tiles(contents),
        sheets=_sheets(contents),
        trips=_trips(contents),
        histograms=_histograms(contents),
        composition=_composition(contents),
        run=_run(contents.last_run),
        runs=[_run_row(run) for run in reversed(contents.runs)],
        reasons=[table for table in (_reasons(contents, "failed"), _reasons(contents, "filtered")) if table["rows"]],
        clips_report=_clips_report(contents),
    )


# --- tiles -------------------------------------------------------------------------------------------------------


def _tiles(contents: Contents) -> list[dict[str, Any]]:
    counts, found = contents.manifest["counts"], contents.survey
    planned, ok = counts["planned"], counts["ok"]
    lost = [f"{words.count(counts[name])} {name}" for name in ("failed", "filtered") if counts.get(name)]
    what = "Videos" if contents.kind == CLIPS else "Clips encoded"
    note = f"of {words.count(planned)}" + (f"; {', '.join(lost)}" if lost else "; none lost")
    tiles = [_tile(what, words.count(ok), note, fill=100 * ok / max(planned, 1))]
    if contents.kind == CLIPS:
        kept, rows = found.kept, counts["rows"]
        note = f"of {words.count(rows)}, {words.share(kept, rows)}" if contents.rules else "no policy: all are kept"
        tiles.append(_tile("Clips kept", words.count(kept), note, fill=100 * kept / max(rows, 1)))
    if found.clip_s:
        whole = words.duration(sum(found.clip_s.values()))
        note = f"of {whole} in all clips" if contents.rules else "in all clips"
        name = "Footage kept" if contents.rules else "Footage"
        tiles.append(_tile(name, words.duration(found.clip_s.get("", 0.0)), note))
    if contents.mean_psnr_db is not None:
        note = f"mean of {len(contents.trips)} frames, latents of {contents.manifest['latent_sizes'][-1]} px a side"
        tiles.append(_tile("Round trip", f"{contents.mean_psnr_db:.1f}", note, unit="dB"))
    shards = len(contents.manifest["shards"])
    number, unit = in_bytes(contents.num_bytes).split(" ", 1)
    tiles.append(_tile("Data", number, f"in {shards} shard{'s' if shards != 1 else ''}", unit=unit))
    if run := contents.last_run:
        number, unit = words.rate(run.done, run.seconds).split(" ", 1)
        note = f"{words.count(run.done)} {run.unit} in {words.duration(run.seconds)}, last run"
        tiles.append(_tile("Speed", number, note, unit=unit))
    return tiles


def _tile(name: str, value: str, note: str, unit: str = "", fill: float | None = None) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "note": note, "fill": fill}


# --- pictures ----------------------------------------------------------------------------------------------------


def _sheets(contents: Contents) -> list[dict[str, Any]]:
    """Return a contact sheet for what is kept, then one for each rule that drops something."""
    found, sheets = contents.survey, []
    for group, places in found.sampled.items():
        pictures = [contents.pictures[place] for place in places if place in contents.pictures]
        expression = contents.rules.get(group, "")
        if pictures:
            sheets.append(
                {
                    "rule": group,
                    "expression": expression if expression != group else "",
                    "num_rows": found.groups[group],
                    "cells": [_cell(picture, contents, expression) for picture in pictures],
                }
            )
    return sheets


def _cell(picture: Picture, contents: Contents, expression: str) -> dict[str, Any]:
    row = picture.row
    named = [name for name in contents.manifest["scores"] if re.search(rf"\b{re.escape(name)}\b", expression)]
    original = contents.originals.get(row["duplicate_of"]) if "duplicate_of" in expression else None
    return {
        "src": jpeg_uri(picture.jpeg),
        "path": row["path"],
        "when": _when(row),
        "caption": row["caption"] or "",
        "scores": [(name, "unknown" if row[name] is None else words.short(row[name])) for name in named],
        "original": original
        and {"src": jpeg_uri(original.jpeg), "path": original.row["path"], "when": _when(original.row)},
    }


def _when(row: Mapping[str, Any]) -> str:
    return f"{_clock(row['start_s'])} to {_clock(row['end_s'])}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f}:{rest:04.1f}"


def _trips(contents: Contents) -> list[dict[str, Any]]:
    return [
        {
            "pictures": [jpeg_uri(one) for one in trip.pictures],
            "psnr": f"{trip.psnr_db:.2f} dB" if math.isfinite(trip.psnr_db) else "no loss",
            "std": f"{trip.latent_std:.2f}",
            "source": trip.source.rsplit("/", 1)[-1],
            "frame": trip.frame,
        }
        for trip in contents.trips
    ]


def jpeg_uri(content: bytes) -> str:
    """Return a JPEG as a `data:` URI."""
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"


# --- numbers -----------------------------------------------------------------------------------------------------


def _histograms(contents: Contents) -> list[dict[str, Any]]:
    """Return the drawings: scores first, then what the videos are."""
    from videogen.data.curation.scores import SCORES

    shown = []
    for histogram in contents.survey.histograms:
        score = SCORES.get(histogram.name)
        shown.append(
            {
                "name": histogram.name,
                "unit": score.unit if score else _UNITS.get(histogram.name, ""),
                "about": score.description if score else "",
                "svg": draw_histogram(histogram, _marks(histogram.name, contents.rules)),
                "note": _note(histogram),
                "is_score": score is not None or histogram.name in contents.manifest.get("scores", ()),
            }
        )
    return sorted(shown, key=lambda one: not one["is_score"])


def _marks(column: str, rules: Mapping[str, str]) -> list[Mark]:
    """Return the numbers that rules compare the column with; only for the drawing, so a plain look at the text does."""
    found = [match for text in rules.values() for match in _COMPARISON.finditer(text) if match[1] == column]
    return [Mark(float(match[3]), f"{match[2]} {match[3]}") for match in found]


def _note(histogram: Histogram) -> str:
    said = (
        f"least {words.short(histogram.least)}, median {words.short(histogram.median)}, "
        f"greatest {words.short(histogram.greatest)}"
    )
    if histogram.greatest > histogram.edges[-1] or histogram.least < histogram.edges[0]:
        said += "; the outermost bars hold all beyond"
    return said + (f"; {words.count(histogram.missing)} unknown" if histogram.missing else "")


def _composition(contents: Contents) -> dict[str, Any]:
    """Return what the videos are: `rows`, column by column, most frequent values first, and what is `same` in all."""
    found, total = contents.survey, max(1, contents.survey.num_rows)
    shown: list[dict[str, Any]] = []
    same: list[tuple[str, str]] = []
    for name, counter in found.words.items():
        if len(counter) == 1:
            same.append((words.plain(name), next(iter(counter))))
            continue
        common = counter.most_common(_MAX_WORDS)
        rest = sum(counter.values()) - sum(number for _, number in common)
        values = [*common, *([(f"{len(counter) - len(common)} others", rest)] if rest else [])]
        cells = [{"value": said, "share": words.share(n, total), "width": 100 * n / total} for said, n in values]
        shown.append({"name": words.plain(name), "cells": cells})
    for name, value in found.constants.items():
        same.append((words.plain(name), f"{value:g} {_UNITS.get(name, '')}".strip()))
    return {"rows": shown, "same": same}


def _reasons(contents: Contents, status: str) -> dict[str, Any]:
    reasons = getattr(contents, status)
    hidden = sum(reason.num_inputs for reason in reasons[_MAX_REASONS:])
    return {
        "title": {"failed": "Failed", "filtered": "Gave nothing to keep"}[status],
        "file": {"failed": "errors.parquet", "filtered": "filtered.parquet"}[status],
        "total": sum(reason.num_inputs for reason in reasons),
        "rows": reasons[:_MAX_REASONS],
        "hidden": hidden,
    }


# --- runs --------------------------------------------------------------------------------------------------------


def _run(run: RunTrace | None) -> dict[str, Any] | None:
    """Return the drawings of a run."""
    if run is None:
        return None
    return {
        "trace": run,
        "rate": draw_rate(run.samples, run.unit),
        "progress": draw_progress(run.samples, run.unit),
        "mean": words.rate(run.done, run.seconds),
        "time": words.article(words.rate_unit(run.done / run.seconds)[0]),
        "operators": _operators(run),
    }


def _operators(run: RunTrace) -> list[dict[str, Any]]:
    whole = sum(run.operator_s.values())
    if not whole:
        return []
    return [
        {
            "name": words.plain(name),
            "took": words.duration(seconds),
            "share": words.share(seconds, whole),
            "width": 100 * seconds / whole,
            "each": f"{words.brief(seconds / max(run.done, 1))} each",
        }
        for name, seconds in run.operator_s.items()
    ]


def _run_row(run: RunTrace) -> dict[str, Any]:
    last = run.samples[-1] if run.samples else None
    ended = {DONE: "done", STOPPED: "stopped"}.get(run.status, "killed")
    return {
        "started": run.started_at.replace("T", " ").removesuffix("+00:00"),
        "step": run.step,
        "on": _hardware(run),
        "took": words.duration(run.seconds),
        "done": f"{words.count(run.done)} of {words.count(run.total)} {run.unit}",
        "lost": f"{words.count(last.filtered)} / {words.count(last.failed)}" if last else "",
        "rate": words.rate(run.done, run.seconds),
        "ended": ended,
        "error": run.error,
    }


def _hardware(run: RunTrace) -> str:
    """Return what the cluster had when the run began, e.g. "8 CPUs, 1 GPU"."""
    named = [(run.settings.get(name, 0), word) for name, word in (("cpus", "CPU"), ("gpus", "GPU"))]
    return ", ".join(f"{number:g} {word}{'s' if number != 1 else ''}" for number, word in named if number)


def _clips_report(contents: Contents) -> str:
    """Return the way from this page to that of the clips in the same table; "" if they lie elsewhere."""
    uri = str(contents.manifest.get("clips", {}).get("uri", ""))
    inside = uri.removeprefix(f"{contents.uri}/")
    if inside == uri or not storage.exists(storage.join(uri, "report/index.html")):
        return ""
    return f"../{inside}/report/index.html"
