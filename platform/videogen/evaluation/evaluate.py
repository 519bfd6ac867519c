"""The whole evaluation: generated videos against their prompts, single stages against their baselines."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from videogen.config import CascadeConfig
from videogen.data.isolated import shared_decoder
from videogen.evaluation.faithfulness import ATTRIBUTES, Judgement, confusion, judge, judge_failed, summarise
from videogen.evaluation.held_out import HeldOut, HeldOutClip
from videogen.evaluation.psnr import measure_stages, overall

ManifestRow = Mapping[str, Any]
"""A row of a generation run's manifest."""


def evaluate(
    config: CascadeConfig,
    model_folder: str | Path,
    held_out: HeldOut,
    videos: Sequence[ManifestRow],
    advance: Callable[[], None] = lambda: None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Evaluate a model.

    Args:
        config: its cascade.
        model_folder: the model, local.
        held_out: real clips.
        videos: manifest rows of videos that the model made of held-out prompts.
        advance: called `evaluation_steps` times.
        device: where decoders and interpolation run.

    Returns:
        The content of `evaluation.json`: accuracies are fractions 0..1, PSNRs dB; None where there is nothing to
        measure. `ceilings` are the same measures on the real held-out clips.
    """
    judged = judge_videos(config, videos, advance)
    stages = {
        name: measure_stages(_frames(clips, advance), model_folder, config.temporal_factor, device)
        for name, clips in held_out.corpora.items()
    }
    ceiling = [
        found
        for clips in held_out.corpora.values()
        for clip in clips
        if clip.caption and (found := judge(clip.caption, clip.read(), config.temporal_factor))
    ]
    return {
        **summarise(judged),
        **{key: _rounded(value) for key, value in asdict(overall(stages.values())).items() if key != "num_clips"},
        "num_prompts": len(judged),
        "num_failed": sum(row["status"] != "ok" for row in videos),
        "ceilings": {**summarise(ceiling), "num_clips": len(ceiling)},
        "corpora": {
            name: {key: _rounded(value) for key, value in asdict(part).items()} for name, part in stages.items()
        },
        "confusions": {name: confusion(judged, name) for name in ATTRIBUTES},
        "prompts": judged,
    }


def evaluation_steps(held_out: HeldOut, videos: Sequence[ManifestRow]) -> int:
    """Return how many videos and clips `evaluate` looks at."""
    return len(videos) + sum(len(clips) for clips in held_out.corpora.values())


def judge_videos(
    config: CascadeConfig, videos: Sequence[ManifestRow], advance: Callable[[], None] = lambda: None
) -> list[Judgement]:
    """Judge every generated video whose prompt is a sentence of the world; one that was not made counts as wrong."""
    judged = []
    for row in videos:
        advance()
        found = judge_failed(row["prompt"])
        if row["status"] == "ok":
            frames = shared_decoder().read_frames(row["video"], range(row["num_frames"]), row["width"])
            found = judge(row["prompt"], frames, config.temporal_factor)
        if found is not None:
            judged.append({**{key: row[key] for key in ("id", "seed", "video", "status", "error")}, **found})
    return judged


def _frames(clips: Sequence[HeldOutClip], advance: Callable[[], None]) -> Iterator[np.ndarray]:
    for clip in clips:
        advance()
        yield clip.read()


def _rounded(value: float) -> float | None:
    # Not a number: a cascade without interpolation has no middle frames.
    return round(value, 4) if np.isfinite(value) else None
