"""Prompt faithfulness of moving-shapes videos: colour, shape and direction, measured from pixels against the prompt."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from videogen.data.synthetic import NUM_FRAMES, SPEEDS, parse_caption
from videogen.evaluation.measurement import measure

ATTRIBUTES = ("colour", "shape", "direction")

VideoScore = dict[str, Any]
"""Score of one video: `prompt`, `{asked, measured, correct}` by attribute, `correct`, and motion metrics."""


def score_video(prompt: str, frames: np.ndarray, temporal_factor: int = 1) -> VideoScore | None:
    """Return the score of a video; None if the prompt is not a sentence of the moving-shapes world.

    Args:
        prompt: the caption.
        frames: uint8 (F, H, W, 3).
        temporal_factor: distance of key frames in frames; the frames between are interpolated.
    """
    asked = parse_caption(prompt)
    if asked is None:
        return None
    measured = measure(frames)
    score: VideoScore = {"prompt": prompt}
    for name in ATTRIBUTES:
        pair = (getattr(asked, name), getattr(measured, name))
        score[name] = {"asked": pair[0], "measured": pair[1], "correct": pair[0] == pair[1]}
    score["correct"] = all(score[name]["correct"] for name in ATTRIBUTES)
    score["speed"] = asked.speed
    score["asked_displacement_px"] = SPEEDS[asked.speed] * frames.shape[2] * (len(frames) - 1) / (NUM_FRAMES - 1)
    score["displacement_px"] = round(measured.displacement_px, 2)
    score["smoothness"] = round(measured.smoothness, 4)
    # Smoothness of the same video without interpolation: each key frame is repeated until the next.
    repeated = frames[np.arange(len(frames)) // temporal_factor * temporal_factor]
    score["smoothness_uninterpolated"] = round(measure(repeated).smoothness, 4)
    score["visible"] = round(measured.visible, 4)
    return score


def score_missing_video(prompt: str) -> VideoScore | None:
    """Return the score of a video that does not exist: every attribute is wrong."""
    return score_video(prompt, np.zeros((NUM_FRAMES, 8, 8, 3), np.uint8))


def summarise(scores: Sequence[VideoScore]) -> dict[str, Any]:
    """Return accuracies as fractions 0..1, smoothness of correctly moving videos, and distance by speed word."""
    if not scores:
        return {f"{name}_accuracy": None for name in ATTRIBUTES} | {"all_correct": None, "motion_smoothness": None}
    moving = [score for score in scores if score["direction"]["correct"]]
    return {
        **{f"{name}_accuracy": _mean(score[name]["correct"] for score in scores) for name in ATTRIBUTES},
        "all_correct": _mean(score["correct"] for score in scores),
        "motion_smoothness": _mean(score["smoothness"] for score in moving),
        "motion_smoothness_uninterpolated": _mean(score["smoothness_uninterpolated"] for score in moving),
        "speeds": {
            speed: {
                "num_prompts": len(group),
                "asked_px": _mean(score["asked_displacement_px"] for score in group),
                "measured_px": _mean(score["displacement_px"] for score in group),
            }
            for speed in SPEEDS
            if (group := [score for score in moving if score["speed"] == speed])
        },
    }


def confusion(scores: Iterable[VideoScore], name: str) -> dict[str, dict[str, int]]:
    """Return the confusion matrix of an attribute: counts by asked, then measured value; None counts as "none"."""
    table: dict[str, dict[str, int]] = {}
    for score in scores:
        row = table.setdefault(score[name]["asked"], {})
        measured = score[name]["measured"] or "none"
        row[measured] = row.get(measured, 0) + 1
    return table


def _mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return round(float(np.mean(values)), 4) if values else None
