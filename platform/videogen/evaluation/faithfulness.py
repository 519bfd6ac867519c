"""Does a video show what its prompt says? Judged from the pixels, prompt by prompt, and summed up."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from videogen.data.synthetic import NUM_FRAMES, SPEEDS, parse_caption
from videogen.evaluation.measurement import measure

ATTRIBUTES = ("colour", "shape", "direction")

Judgement = dict[str, Any]
"""One video: `prompt`, per attribute `{asked, measured, correct}`, `correct`, and numbers about its motion."""


def judge(prompt: str, frames: np.ndarray, temporal_factor: int = 1) -> Judgement | None:
    """Compare a video with its prompt; None if the prompt is not a sentence of the moving-shapes world.

    Args:
        prompt: the caption.
        frames: uint8 (F, H, W, 3).
        temporal_factor: every how many frames a key frame lies; the others were interpolated.
    """
    asked = parse_caption(prompt)
    if asked is None:
        return None
    measured = measure(frames)
    judgement: Judgement = {"prompt": prompt}
    for name in ATTRIBUTES:
        pair = (getattr(asked, name), getattr(measured, name))
        judgement[name] = {"asked": pair[0], "measured": pair[1], "correct": pair[0] == pair[1]}
    judgement["correct"] = all(judgement[name]["correct"] for name in ATTRIBUTES)
    judgement["speed"] = asked.speed
    judgement["asked_displacement_px"] = SPEEDS[asked.speed] * frames.shape[2] * (len(frames) - 1) / (NUM_FRAMES - 1)
    judgement["displacement_px"] = round(measured.displacement_px, 2)
    judgement["smoothness"] = round(measured.smoothness, 4)
    # What the same video would score had nobody interpolated: each key frame shown until the next one comes.
    repeated = frames[np.arange(len(frames)) // temporal_factor * temporal_factor]
    judgement["smoothness_uninterpolated"] = round(measure(repeated).smoothness, 4)
    judgement["visible"] = round(measured.visible, 4)
    return judgement


def judge_failed(prompt: str) -> Judgement | None:
    """Return the judgement of a video that was never made: all of it wrong."""
    return judge(prompt, np.zeros((NUM_FRAMES, 8, 8, 3), np.uint8))


def summarise(judgements: Sequence[Judgement]) -> dict[str, Any]:
    """Return accuracies as fractions 0..1, smoothness of the videos that move as asked, and travel by speed word."""
    if not judgements:
        return {f"{name}_accuracy": None for name in ATTRIBUTES} | {"all_correct": None, "motion_smoothness": None}
    moving = [judgement for judgement in judgements if judgement["direction"]["correct"]]
    return {
        **{f"{name}_accuracy": _mean(judgement[name]["correct"] for judgement in judgements) for name in ATTRIBUTES},
        "all_correct": _mean(judgement["correct"] for judgement in judgements),
        "motion_smoothness": _mean(judgement["smoothness"] for judgement in moving),
        "motion_smoothness_uninterpolated": _mean(judgement["smoothness_uninterpolated"] for judgement in moving),
        "speeds": {
            speed: {
                "num_prompts": len(group),
                "asked_px": _mean(judgement["asked_displacement_px"] for judgement in group),
                "measured_px": _mean(judgement["displacement_px"] for judgement in group),
            }
            for speed in SPEEDS
            if (group := [judgement for judgement in moving if judgement["speed"] == speed])
        },
    }


def confusion(judgements: Iterable[Judgement], name: str) -> dict[str, dict[str, int]]:
    """Return for each asked value of an attribute how often each value was measured; None counts as "none"."""
    table: dict[str, dict[str, int]] = {}
    for judgement in judgements:
        row = table.setdefault(judgement[name]["asked"], {})
        measured = judgement[name]["measured"] or "none"
        row[measured] = row.get(measured, 0) + 1
    return table


def _mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return round(float(np.mean(values)), 4) if values else None
