"""The whole evaluation: generated videos against their prompts, single stages against their baselines."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from videogen.config import CascadeConfig
from videogen.data.isolation import shared_decoder
from videogen.data.video import VideoError
from videogen.evaluation.faithfulness import ATTRIBUTES, Judgement, confusion, judge, judge_failed, summarise
from videogen.evaluation.held_out import HeldOut, HeldOutClip
from videogen.evaluation.psnr import measure_stages, overall

logger = logging.getLogger(__name__)

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
        measure. `ceilings` are the same measures on the real held-out clips. A video that cannot be read counts as
        failed; a held-out clip that cannot is left out, and counted in `num_unreadable`.
    """
    judged, num_failed = judge_videos(config, videos, advance)
    unreadable: Counter[str] = Counter()
    stages = {
        name: measure_stages(_frames(name, clips, unreadable, advance), model_folder, config.temporal_factor, device)
        for name, clips in held_out.corpora.items()
    }
    ceiling = [
        found
        for clips in held_out.corpora.values()
        for clip in clips
        if clip.caption
        and (frames := _read(clip)) is not None
        and (found := judge(clip.caption, frames, config.temporal_factor))
    ]
    return {
        **summarise(judged),
        **{key: _rounded(value) for key, value in asdict(overall(stages.values())).items() if key != "num_clips"},
        "num_prompts": len(judged),
        "num_failed": num_failed,
        "num_unreadable": unreadable.total(),
        "ceilings": {**summarise(ceiling), "num_clips": len(ceiling)},
        "corpora": {
            name: {
                **{key: _rounded(value) for key, value in asdict(part).items()},
                "num_unreadable": unreadable[name],
            }
            for name, part in stages.items()
        },
        "confusions": {name: confusion(judged, name) for name in ATTRIBUTES},
        "prompts": judged,
    }


def evaluation_steps(held_out: HeldOut, videos: Sequence[ManifestRow]) -> int:
    """Return how many videos and clips `evaluate` looks at."""
    return len(videos) + sum(len(clips) for clips in held_out.corpora.values())


def judge_videos(
    config: CascadeConfig, videos: Sequence[ManifestRow], advance: Callable[[], None] = lambda: None
) -> tuple[list[Judgement], int]:
    """Judge every generated video whose prompt is a sentence of the world.

    Returns:
        The judgements, and how many videos of any prompt were not made or cannot be read: those count as wrong.
    """
    judged, num_failed = [], 0
    for listed in videos:
        advance()
        row, frames = _opened(listed)
        num_failed += frames is None
        prompt = row["prompt"]
        found = judge_failed(prompt) if frames is None else judge(prompt, frames, config.temporal_factor)
        if found is not None:
            judged.append({**{key: row[key] for key in ("id", "seed", "video", "status", "error")}, **found})
    return judged, num_failed


def _opened(row: ManifestRow) -> tuple[ManifestRow, np.ndarray | None]:
    """Return a row and its video's frames; None if it was not made, is gone or is broken, as the row then says."""
    if row["status"] != "ok":
        return row, None
    try:
        return row, shared_decoder().read_frames(row["video"], range(row["num_frames"]), (row["height"], row["width"]))
    except VideoError as error:
        logger.warning("video %s counts as failed: %s", row["video"], error)
        return {**row, "status": "failed", "error": f"video: {error}"}, None


def _frames(
    name: str, clips: Sequence[HeldOutClip], unreadable: Counter[str], advance: Callable[[], None]
) -> Iterator[np.ndarray]:
    """Yield the clips of a corpus, counting under its name those that cannot be read."""
    for clip in clips:
        advance()
        frames = _read(clip)
        if frames is not None:
            yield frames
        else:
            logger.warning("held-out clip of %s is left out: it cannot be read", clip.source)
            unreadable[name] += 1


def _read(clip: HeldOutClip) -> np.ndarray | None:
    try:
        return clip.read()
    except VideoError:
        return None


def _rounded(value: float) -> float | None:
    # Not a number: a cascade without interpolation has no middle frames.
    return round(value, 4) if np.isfinite(value) else None
