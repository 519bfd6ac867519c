"""Headline tiles and tables of the cascade report, from the content of evaluation.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from videogen.data.synthetic import COLOURS, DIRECTIONS, SHAPES, SPEEDS
from videogen.evaluation.faithfulness import ATTRIBUTES
from videogen.reporting.page import Tile

TARGETS = {"colour": 0.95, "shape": 0.85, "direction": 0.90}
"""Accuracy that a cascade trained on the moving-shapes world should reach on held-out prompts."""

_VALUES = {"colour": tuple(COLOURS), "shape": SHAPES, "direction": tuple(DIRECTIONS)}
_SMOOTHNESS_TARGET = 0.8
"""Real clips read back from mp4 reach about 0.93."""


@dataclass(frozen=True)
class Cell:
    """Coloured cell of a table."""

    text: str | int
    kind: Literal["win", "loss", "hit", "miss"]
    share: float = 1
    """Strength of the colour, 0..1."""


@dataclass(frozen=True)
class Table:
    """Table of the page; the first cell of a row is its header."""

    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell | str | int]]


# --- tiles -------------------------------------------------------------------------------------------------------


def tiles(evaluation: Mapping[str, Any]) -> list[Tile]:
    """Return the headline numbers with their targets; a number that was not measured is left out."""
    ceilings = evaluation["ceilings"]
    found = [
        _share_tile(name.capitalize(), evaluation[f"{name}_accuracy"], ceilings.get(f"{name}_accuracy"), TARGETS[name])
        for name in ATTRIBUTES
    ]
    smoothness = evaluation["motion_smoothness"]
    tile = _share_tile("Smooth motion", smoothness, ceilings.get("motion_smoothness"), _SMOOTHNESS_TARGET)
    if tile:
        repeated = evaluation["motion_smoothness_uninterpolated"]
        found.append(replace(tile, note=f"{tile.note}; {repeated:.0%} with repeated key frames"))
    found.append(
        _gain_tile(evaluation, "Temporal decoder", "decoder_psnr_db", "image_decoder_psnr_db", "image decoder")
    )
    found.append(_gain_tile(evaluation, "Interpolation", "interpolation_psnr_db", "blend_psnr_db", "linear blend"))
    return [tile for tile in found if tile]


def _share_tile(name: str, value: float | None, ceiling: float | None, target: float) -> Tile | None:
    if value is None:
        return None
    return Tile(
        name=name,
        value=f"{100 * value:.1f}".removesuffix(".0"),
        unit="%",
        note=f"target {target:.0%}" + ("" if ceiling is None else f", real clips {ceiling:.0%}"),
        fill=100 * value,
        mark=100 * target,
        mark_label=f"target {target:.0%}",
        is_met=value >= target,
    )


def _gain_tile(
    evaluation: Mapping[str, Any], name: str, key: str, baseline_key: str, baseline_name: str
) -> Tile | None:
    value, baseline = evaluation[key], evaluation[baseline_key]
    if value is None or baseline is None:
        return None
    note = f"{value:.2f} dB, {baseline_name} {baseline:.2f} dB"
    return Tile(name, f"{value - baseline:+.2f}", note, unit="dB", is_met=value > baseline)


# --- tables ------------------------------------------------------------------------------------------------------


def tables(evaluation: Mapping[str, Any], timings: Mapping[str, float]) -> list[Table]:
    """Return the tables that have rows."""
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
            "PSNR in dB of the frames between key frames, all decoded by the image decoder.",
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
    return [table for table in found if table.rows]


def _stage_table(evaluation: Mapping[str, Any], title: str, note: str, keys: Mapping[str, str]) -> Table:
    rows: list[list[Cell | str | int]] = []
    num_clips = sum(part["num_clips"] for part in evaluation["corpora"].values())
    parts = {**evaluation["corpora"], "all": {**evaluation, "num_clips": num_clips}}
    first, second = list(keys.values())[:2]
    for corpus, part in parts.items():
        if part[first] is None or part[second] is None:
            continue
        gain = Cell(f"{part[first] - part[second]:+.2f}", "win" if part[first] > part[second] else "loss")
        rows.append([corpus, part["num_clips"], *(f"{part[key]:.2f}" for key in keys.values()), gain])
    return Table(title, note, ["corpus", "clips", *keys, "gain"], rows)


def _confusion_table(name: str, counts: Mapping[str, Mapping[str, int]]) -> Table:
    values = _VALUES[name]
    measured = [*values, *(["none"] if any("none" in row for row in counts.values()) else [])]
    rows: list[list[Cell | str | int]] = []
    for asked in values:
        row = counts.get(asked, {})
        total = sum(row.values())
        if not total:
            continue
        cells = [
            Cell(row[one], "hit" if one == asked else "miss", row[one] / total) if one in row else ""
            for one in measured
        ]
        rows.append([asked, *cells])
    return Table(name.capitalize(), "Asked for (rows) and measured (columns).", ["", *measured], rows)


def _speed_table(evaluation: Mapping[str, Any]) -> Table:
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
    return Table("Speed", "Pixels travelled over the clip.", header, rows)


def _timing_table(timings: Mapping[str, float]) -> Table:
    rows = [[step, f"{seconds:.1f}"] for step, seconds in timings.items()]
    if rows:
        rows.append(["all", f"{sum(timings.values()):.1f}"])
    return Table("Time", "Seconds of each step.", ["step", "s"], rows)
