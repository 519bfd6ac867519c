"""Table report page: report contents to HTML."""

import re
from typing import Any

from videogen import storage
from videogen.data.datasets.clips_schema import KIND as CLIPS
from videogen.data.tables import Row
from videogen.reporting import formatting
from videogen.reporting.page import Tile, data_uri, render_page
from videogen.reporting.table.contents import Contents
from videogen.reporting.table.sections import composition, histograms, reason_tables, reconstructions, run_row, run_view


def render(contents: Contents) -> str:
    """Return the page."""
    return render_page(
        "table.html.j2",
        contents=contents,
        manifest=contents.manifest,
        is_clips=contents.kind == CLIPS,
        tiles=_tiles(contents),
        sheets=_sheets(contents),
        reconstructions=reconstructions(contents.reconstructions),
        histograms=histograms(contents),
        composition=composition(contents.survey),
        run=run_view(contents.last_run),
        runs=[run_row(run) for run in reversed(contents.runs)],
        reasons=reason_tables(contents),
        clips_report=_clips_report(contents),
    )


# --- headline ----------------------------------------------------------------------------------------------------


def _tiles(contents: Contents) -> list[Tile]:
    count, duration = formatting.count, formatting.duration
    counts, found = contents.manifest["counts"], contents.survey
    planned, ok = counts["planned"], counts["ok"]
    lost = [f"{count(counts[name])} {name}" for name in ("failed", "filtered") if counts.get(name)]
    name = "Videos" if contents.kind == CLIPS else "Clips encoded"
    note = f"of {count(planned)}" + (f"; {', '.join(lost)}" if lost else "; none lost")
    tiles = [Tile(name, count(ok), note, fill=100 * ok / max(planned, 1))]
    if contents.kind == CLIPS:
        kept, rows = found.kept, counts["rows"]
        note = f"of {count(rows)}, {formatting.percent(kept, rows)}" if contents.rules else "no policy: all are kept"
        tiles.append(Tile("Clips kept", count(kept), note, fill=100 * kept / max(rows, 1)))
    if found.seconds:
        note = f"of {duration(sum(found.seconds.values()))} in all clips" if contents.rules else "in all clips"
        name = "Footage kept" if contents.rules else "Footage"
        tiles.append(Tile(name, duration(found.seconds.get("", 0.0)), note))
    if contents.mean_psnr_db is not None:
        num_frames, side = len(contents.reconstructions), contents.manifest["latent_sizes"][-1]
        note = f"mean PSNR of {num_frames} frames, latents of {side} px a side"
        tiles.append(Tile("Reconstruction", f"{contents.mean_psnr_db:.1f}", note, unit="dB"))
    shards = len(contents.manifest["shards"])
    value, unit = formatting.in_bytes(contents.num_bytes).split(" ", 1)
    tiles.append(Tile("Data", value, f"in {shards} shard{'s' if shards != 1 else ''}", unit=unit))
    if run := contents.last_run:
        value, unit = formatting.rate(run.done, run.seconds).split(" ", 1)
        note = f"{count(run.done)} {run.unit} in {duration(run.seconds)}, last run"
        tiles.append(Tile("Speed", value, note, unit=unit))
    return tiles


# --- contact sheets ----------------------------------------------------------------------------------------------


def _sheets(contents: Contents) -> list[dict[str, Any]]:
    """Return a contact sheet of the kept clips, then one for each rule that drops clips."""
    sheets = []
    for group, rows in contents.pictured().items():
        expression = contents.rules.get(group, "")
        if rows:
            sheets.append(
                {
                    "rule": group,
                    "expression": expression if expression != group else "",
                    "num_rows": contents.survey.groups[group],
                    "cells": [_cell(row, contents, expression) for row in rows],
                }
            )
    return sheets


def _cell(row: Row, contents: Contents, expression: str) -> dict[str, Any]:
    named = [name for name in contents.manifest["scores"] if re.search(rf"\b{re.escape(name)}\b", expression)]
    original = contents.originals.get(row["duplicate_of"]) if "duplicate_of" in expression else None
    return {
        **_picture(row),
        "caption": row["caption"] or "",
        "scores": [(name, "unknown" if row[name] is None else formatting.short(row[name])) for name in named],
        "original": _picture(original) if original else None,
    }


def _picture(row: Row) -> dict[str, str]:
    return {
        "src": data_uri(row["thumbnail"], "image/jpeg"),
        "path": row["path"],
        "span": f"{formatting.timestamp(row['start_s'])} to {formatting.timestamp(row['end_s'])}",
    }


def _clips_report(contents: Contents) -> str:
    """Return the relative URI of the report of the clips inside this table; "" if they are elsewhere."""
    uri = str(contents.manifest.get("clips", {}).get("uri", ""))
    inside = uri.removeprefix(f"{contents.uri}/")
    if inside == uri or not storage.exists(storage.join(uri, "report/index.html")):
        return ""
    return f"../{inside}/report/index.html"
