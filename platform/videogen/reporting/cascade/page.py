"""Cascade report: one self-contained page about a trained cascade, with videos, loss curves and tables.

Pictures are `data:` URIs, style and script are inline, so the page can be mailed or archived.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from videogen import storage
from videogen.evaluation.psnr import ImageDecoder
from videogen.reporting.cascade.gallery import choose_examples, example
from videogen.reporting.cascade.stages import describe_stages, gallery_columns
from videogen.reporting.cascade.tables import tables, tiles
from videogen.reporting.cascade.training_curves import read_training_curve
from videogen.reporting.page import render_page
from videogen.stages import NOT_THE_MODEL, CascadeConfig

_NO_EXAMPLE: dict[str, Any] = {"id": "", "prompt": "", "media": {}}


@dataclass(frozen=True)
class ReportSources:
    """Sources of a report; every URI may be remote."""

    model: str
    """Model folder; its `training/` holds the metrics logs."""
    generated: str
    """Folder of a generation run, with intermediates if the page is to show them."""
    evaluation: Mapping[str, Any]
    """Content of `evaluation.json`."""
    videos: Sequence[Mapping[str, Any]]
    """Rows of the run's manifest."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each step of the whole job."""
    made_from: str = ""
    """Fingerprint of all sources, kept in the page."""


def write_report(
    uri: str, config: CascadeConfig, sources: ReportSources, advance: Callable[[], None] = lambda: None
) -> None:
    """Write the page to `uri`; `advance` is called once per gallery row."""
    with storage.local_copy(sources.model, exclude=NOT_THE_MODEL) as folder:
        storage.write_text(uri, render(config, sources, folder, advance))


def render(
    config: CascadeConfig, sources: ReportSources, model_folder: str | Path, advance: Callable[[], None] = lambda: None
) -> str:
    """Return the page."""
    scores = {row["id"]: row for row in sources.evaluation["prompts"]}
    decoder = ImageDecoder(model_folder)
    examples: list[dict[str, Any]] = []
    media: dict[str, Any] = {}
    for row in choose_examples(sources.videos, scores):
        shown = example(row, scores.get(row["id"]), sources.generated, config, decoder)
        media |= {f"{row['id']}/{stage}": sprite for stage, sprite in shown["media"].items()}
        examples.append(shown)
        advance()
    logs = storage.join(sources.model, "training")
    curves = [curve for name in config.trainable_stages() if (curve := read_training_curve(logs, name))]
    stages = describe_stages(config, Path(model_folder))
    return render_page(
        "cascade.html.j2",
        model={"name": config.name, "trained": config.trainable_stages(), "stages": stages},
        made_from=sources.made_from,
        lead=_lead(config),
        hero=next((one for one in examples if one["correct"]), examples[0] if examples else _NO_EXAMPLE),
        tiles=tiles(sources.evaluation),
        examples=examples,
        num_correct=sum(one["correct"] is True for one in examples),
        num_wrong=sum(one["correct"] is False for one in examples),
        columns=gallery_columns(config),
        training=[curve.view() for curve in curves],
        tables=tables(sources.evaluation, sources.timings),
        media=media,
    )


def _lead(config: CascadeConfig) -> str:
    side, last = config.latent_sizes[0], config.resolution
    return (
        f"Every video below was generated from its sentence alone: {config.num_frames} key frames at {config.fps:g} "
        f"frames a second as latents of {side} x {side}, then {config.num_output_frames} frames at "
        f"{config.output_fps:g} frames a second in {last} x {last} pixels."
    )
