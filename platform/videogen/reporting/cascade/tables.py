"""The report's numbers: headline tiles against their targets, and tables."""

from collections.abc import Mapping
from typing import Any

from videogen.data.synthetic.moving_shapes import COLOURS, DIRECTIONS, SHAPES, SPEEDS
from videogen.evaluation.faithfulness import ATTRIBUTES

TARGETS = {"colour": 0.95, "shape": 0.85, "direction": 0.90}
"""What a cascade trained on the moving-shapes world is expected to reach on held-out prompts."""

_VALUES = {"colour": tuple(COLOURS), "shape": SHAPES, "direction": tuple(DIRECTIONS)}
_SMOOTH = 0.8
"""Smoothness above which motion counts as smooth; real clips read back from mp4 score about 0.93."""


def headline(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the tiles: value, unit, bar, mark of the target, and whether it is met."""
    ceilings = evaluation["ceilings"]
    tiles = [
        _share(name.capitalize(), evaluation[f"{name}_accuracy"], ceilings.get(f"{name}_accuracy"), TARGETS[name])
        for name in ATTRIBUTES
    ]
    smooth = evaluation["motion_smoothness"]
    if smooth is not None:
        before = evaluation["motion_smoothness_uninterpolated"]
        tile = _share("Smooth motion", smooth, ceilings.get("motion_smoothness"), _SMOOTH)
        tiles.append(tile | {"note": f"{tile['note']}; {before:.0%} if key frames were only repeated"})
    tiles.append(_gain(evaluation, "Temporal decoder", "decoder_psnr_db", "image_decoder_psnr_db", "image decoder"))
    tiles.append(_gain(evaluation, "Interpolation", "interpolation_psnr_db", "blend_psnr_db", "linear blend"))
    return [tile for tile in tiles if tile["value"] is not None]


def _share(name: str, value: float | None, ceiling: float | None, target: float) -> dict[str, Any]:
    note = f"target {target:.0%}" + ("" if ceiling is None else f", real clips {ceiling:.0%}")
    shown = None if value is None else f"{100 * value:.1f}".removesuffix(".0")
    return {
        "name": name,
        "value": shown,
        "unit": "%",
        "fill": None if value is None else 100 * value,
        "mark": 100 * target,
        "mark_label": f"target {target:.0%}",
        "met": None if value is None else value >= target,
        "note": note,
    }


def _gain(evaluation: Mapping[str, Any], name: str, key: str, baseline: str, words: str) -> dict[str, Any]:
    ours, theirs = evaluation[key], evaluation[baseline]
    known = ours is not None and theirs is not None
    return {
        "name": name,
        "value": f"{ours - theirs:+.2f}" if known else None,
        "unit": "dB",
        "fill": None,
        "mark": None,
        "mark_label": "",
        "met": ours > theirs if known else None,
        "note": f"{ours:.2f} dB, {words} {theirs:.2f} dB" if known else "",
    }


def tables(evaluation: Mapping[str, Any], timings: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return all tables: title, note, header, rows; a cell is text or {text, kind, share}."""
    found = [
        _stage_table(
            evaluation,
            "Decoder",
            "PSNR in dB on the latents of held-out clips.",
            {"temporal decoder": "decoder_psnr_db", "image decoder": "image_decoder_psnr_db"},
        ),
        _stage_table(
            evaluation,
            "Interpolation",
            "PSNR in dB of the frames between key frames, all shown by the image decoder.",
            {
                "flow": "interpolation_psnr_db",
                "linear blend": "blend_psnr_db",
                "true latents": "interpolation_ceiling_psnr_db",
            },
        ),
        *(_confusion_table(name, evaluation["confusions"][name]) for name in ATTRIBUTES if evaluation["prompts"]),
        _speed_table(evaluation),
        _timing_table(timings),
    ]
    return [table for table in found if table and table["rows"]]


def _stage_table(evaluation: Mapping[str, Any], title: str, note: str, keys: Mapping[str, str]) -> dict[str, Any]:
    rows = []
    parts = {**evaluation["corpora"], "all": {**evaluation, "num_clips": _num_clips(evaluation)}}
    first, second = list(keys.values())[:2]
    for corpus, part in parts.items():
        if part[first] is None or part[second] is None:
            continue
        best = "win" if part[first] > part[second] else "loss"
        cells = [f"{part[key]:.2f}" for key in keys.values()]
        gain = {"text": f"{part[first] - part[second]:+.2f}", "kind": best, "share": 1}
        rows.append([corpus, part["num_clips"], *cells, gain])
    return {"title": title, "note": note, "header": ["corpus", "clips", *keys, "gain"], "rows": rows}


def _num_clips(evaluation: Mapping[str, Any]) -> int:
    return sum(part["num_clips"] for part in evaluation["corpora"].values())


def _confusion_table(name: str, counts: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    values = _VALUES[name]
    measured = [*values, *(["none"] if any("none" in row for row in counts.values()) else [])]
    rows = []
    for asked in values:
        row = counts.get(asked, {})
        total = sum(row.values())
        if not total:
            continue
        cells = [
            {"text": row[one], "kind": "hit" if one == asked else "miss", "share": row[one] / total}
            if one in row
            else ""
            for one in measured
        ]
        rows.append([asked, *cells])
    return {
        "title": name.capitalize(),
        "note": "Asked for (rows) and measured (columns).",
        "header": ["", *measured],
        "rows": rows,
    }


def _speed_table(evaluation: Mapping[str, Any]) -> dict[str, Any] | None:
    speeds, real = evaluation.get("speeds", {}), evaluation["ceilings"].get("speeds", {})
    rows = [
        [
            word,
            speeds[word]["num_prompts"],
            f"{speeds[word]['asked_px']:.1f}",
            f"{speeds[word]['measured_px']:.1f}",
            f"{real[word]['measured_px']:.1f}" if word in real else "",
        ]
        for word in SPEEDS
        if word in speeds
    ]
    header = ["", "prompts", "asked", "generated", "real clips"]
    return {"title": "Speed", "note": "Pixels travelled over the clip.", "header": header, "rows": rows}


def _timing_table(timings: Mapping[str, float]) -> dict[str, Any]:
    rows = [[step, f"{seconds:.1f}"] for step, seconds in timings.items()]
    if rows:
        rows.append(["all", f"{sum(timings.values()):.1f}"])
    return {"title": "Time", "note": "Seconds of each step.", "header": ["step", "s"], "rows": rows}
