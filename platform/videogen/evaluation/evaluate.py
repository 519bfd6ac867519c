"""Evaluation of a model: generated videos against their prompts, single stages against their baselines."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from videogen.data.isolation import shared_decoder
from videogen.data.video import VideoError
from videogen.evaluation.faithfulness import (
    ATTRIBUTES,
    VideoScore,
    confusion,
    score_missing_video,
    score_video,
    summarise,
)
from videogen.evaluation.held_out import HeldOut, HeldOutClip
from videogen.evaluation.psnr import measure_stages, overall
from videogen.stages import CascadeConfig

logger = logging.getLogger(__name__)

ManifestRow = Mapping[str, Any]
"""Row of a generation run's manifest."""


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
        videos: manifest rows of videos that the model generated from held-out prompts.
        advance: called `evaluation_steps` times.
        device: where decoders and interpolation run.

    Returns:
        The content of `evaluation.json`: accuracies are fractions 0..1, PSNRs are in dB; None where nothing can be
        measured. `ceilings` are the same metrics on the real held-out clips. An unreadable video counts as failed; an
        unreadable held-out clip is left out and counted in `num_unreadable`.
    """
    scores, num_failed = score_videos(config, videos, advance)
    unreadable: Counter[str] = Counter()
    stages = {
        name: measure_stages(_frames(name, clips, unreadable, advance), model_folder, config.temporal_factor, device)
        for name, clips in held_out.corpora.items()
    }
    ceiling = [
        score
        for clips in held_out.corpora.values()
        for clip in clips
        if clip.caption
        and (frames := _read(clip)) is not None
        and (score := score_video(clip.caption, frames, config.temporal_factor))
    ]
    return {
        **summarise(scores),
        **{key: _rounded(value) for key, value in asdict(overall(stages.values())).items() if key != "num_clips"},
        "num_prompts": len(scores),
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
        "confusions": {name: confusion(scores, name) for name in ATTRIBUTES},
        "prompts": scores,
    }


def evaluation_steps(held_out: HeldOut, videos: Sequence[ManifestRow]) -> int:
    """Return the number of videos and clips that `evaluate` reads."""
    return len(videos) + sum(len(clips) for clips in held_out.corpora.values())


def score_videos(
    config: CascadeConfig, videos: Sequence[ManifestRow], advance: Callable[[], None] = lambda: None
) -> tuple[list[VideoScore], int]:
    """Score every generated video whose prompt is a sentence of the moving-shapes world.

    Returns:
        The scores, and the number of videos of any prompt that are missing or unreadable; these score as wrong.
    """
    scores, num_failed = [], 0
    for manifest_row in videos:
        advance()
        row, frames = _read_video(manifest_row)
        num_failed += frames is None
        prompt = row["prompt"]
        score = score_missing_video(prompt) if frames is None else score_video(prompt, frames, config.temporal_factor)
        if score is not None:
            scores.append({**{key: row[key] for key in ("id", "seed", "video", "status", "error")}, **score})
    return scores, num_failed


def _read_video(row: ManifestRow) -> tuple[ManifestRow, np.ndarray | None]:
    """Return a row and its video's frames; None, and the reason in the row, if the video is missing or unreadable."""
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
    """Yield the readable clips of a corpus, and count the others in `unreadable`."""
    for clip in clips:
        advance()
        frames = _read(clip)
        if frames is not None:
            yield frames
        else:
            logger.warning("held-out clip of %s is left out: it is unreadable", clip.source)
            unreadable[name] += 1


def _read(clip: HeldOutClip) -> np.ndarray | None:
    try:
        return clip.read()
    except VideoError:
        return None


def _rounded(value: float) -> float | None:
    # NaN: a cascade without interpolation has no middle frames.
    return round(value, 4) if np.isfinite(value) else None
