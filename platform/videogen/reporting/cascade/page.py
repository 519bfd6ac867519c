"""The report: one self-contained page about a trained cascade, with videos, curves and tables inside.

Nothing is fetched by the page: pictures are `data:` URIs, style and script are inline, so it can be mailed or archived.
"""

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from videogen import storage
from videogen.config import CascadeConfig
from videogen.evaluation.faithfulness import ATTRIBUTES
from videogen.evaluation.psnr import ImageDecoder
from videogen.reporting.cascade.curves import Curve, draw, read_curve
from videogen.reporting.cascade.media import data_uri, sprite
from videogen.reporting.cascade.tables import headline, tables
from videogen.stages import NOT_THE_MODEL

_TEMPLATES = Path(__file__).parent / "templates"
_MAX_EXAMPLES = 120
"""Rows of the gallery; a page of more would be slow to open."""
_FOOTER = (
    "Colour, shape and direction are measured from the pixels of the finished mp4 files. PSNR is the mean over "
    "held-out clips. This page is one file: its videos, curves and tables are all inside."
)


@dataclass(frozen=True)
class ReportSources:
    """Where a report's content comes from; every URI may be remote."""

    model: str
    """Model folder; its `training/` holds the curves."""
    generated: str
    """Folder of a generation run with intermediates."""
    evaluation: Mapping[str, Any]
    """Content of `evaluation.json`."""
    videos: Sequence[Mapping[str, Any]]
    """Rows of the run's manifest."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each step of the whole job."""
    made_from: str = ""
    """A stamp of all the above, kept in the page."""


def write_report(
    uri: str, config: CascadeConfig, sources: ReportSources, advance: Callable[[], None] = lambda: None
) -> None:
    """Write the page to `uri`; `advance` is called once a gallery row."""
    with storage.local_copy(sources.model, exclude=NOT_THE_MODEL) as folder:
        storage.write_text(uri, render(config, sources, str(folder), advance))


def made_from_of(page: str) -> str | None:
    """Return what a page says it was made from."""
    found = re.search(r'<meta name="made-from" content="(\w*)">', page)
    return found[1] if found else None


def render(
    config: CascadeConfig, sources: ReportSources, model_folder: str, advance: Callable[[], None] = lambda: None
) -> str:
    """Return the page."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        # Style sheet and script are included as they are; all values pass through the page, which escapes.
        autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "count_short": count_short, "in_words": in_words}
    judged = {row["id"]: row for row in sources.evaluation["prompts"]}
    decoder = ImageDecoder(model_folder)
    examples: list[dict[str, Any]] = []
    media: dict[str, Any] = {}
    for row in _chosen(sources.videos, judged):
        example = _example(row, judged.get(row["id"]), sources.generated, config, decoder)
        media |= {f"{row['id']}/{key}": one for key, one in example["media"].items()}
        examples.append(example)
        advance()
    curves = [curve for name in config.trainable_stages() if (curve := _curve(sources.model, name))]
    return environment.get_template("report.html.j2").render(
        model=_describe(config, model_folder),
        made_from=sources.made_from,
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        lead=_lead(config),
        hero=next((one for one in examples if one["correct"]), examples[0] if examples else {"id": "", "media": {}}),
        tiles=headline(sources.evaluation),
        examples=examples,
        num_correct=sum(one["correct"] is True for one in examples),
        num_wrong=sum(one["correct"] is False for one in examples),
        columns=_columns(config),
        curves=[{"run": one, "svg": draw(one), "steps": one.steps[-1]} for one in curves],
        tables=tables(sources.evaluation, sources.timings),
        media=media,
        footer=_FOOTER,
    )


def _chosen(videos: Sequence[Mapping[str, Any]], judged: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the gallery's rows; if there are too many, all wrong ones come first into it."""
    if len(videos) <= _MAX_EXAMPLES:
        return list(videos)
    wrong = {row["id"] for row in videos if not judged.get(row["id"], {"correct": True})["correct"]}
    chosen = {row["id"] for row in sorted(videos, key=lambda row: row["id"] not in wrong)[:_MAX_EXAMPLES]}
    return [row for row in videos if row["id"] in chosen]


def _example(
    row: Mapping[str, Any],
    judgement: Mapping[str, Any] | None,
    generated: str,
    config: CascadeConfig,
    decoder: ImageDecoder,
) -> dict[str, Any]:
    """Return one row of the gallery: what was asked, what was measured, and its pictures by column."""
    from videogen.data.isolation.decoder import shared_decoder
    from videogen.data.video.frames import VideoError

    example: dict[str, Any] = {name: row[name] for name in ("id", "prompt", "seed", "error")}
    example |= {"mp4": None, "media": {}, "correct": None, "checks": []}
    if judgement:
        example["correct"] = judgement["correct"]
        example["checks"] = [{"name": name, **judgement[name]} for name in ATTRIBUTES]
    if row["status"] != "ok":
        return example
    try:
        content = storage.read_bytes(row["video"])
        frames = shared_decoder().read_frames(content, range(row["num_frames"]), (row["height"], row["width"]))
    except (VideoError, OSError) as error:
        return example | {"error": f"video: {error}"}
    example["mp4"] = data_uri(content, "video/mp4")
    example["media"] = _intermediates(
        storage.join(generated, "intermediates", f"{row['id']}.safetensors"), config, decoder
    )
    example["media"][config.stage_names()[-1]] = sprite(frames, row["fps"])
    return example


def _intermediates(uri: str, config: CascadeConfig, decoder: ImageDecoder) -> dict[str, Any]:
    """Return the pictures of a video's way to the last stage; latents are shown through the image decoder."""
    from safetensors.numpy import load

    if not storage.exists(uri):
        return {}
    arrays: dict[str, np.ndarray] = load(storage.read_bytes(uri))
    found = {}
    for name in config.stage_names()[:-1]:
        if f"{name}.reference_image" in arrays:
            found[name] = sprite(arrays[f"{name}.reference_image"][None], 0)
            continue
        if f"{name}.frames" in arrays:
            frames = arrays[f"{name}.frames"]
        elif f"{name}.latents" in arrays:
            frames = decoder.decode(arrays[f"{name}.latents"])
        else:
            continue
        found[name] = sprite(frames, config.output_fps if len(frames) == config.num_output_frames else config.fps)
    return found


def _curve(model: str, stage: str) -> Curve | None:
    return read_curve(storage.join(model, "training"), stage)


def _columns(config: CascadeConfig) -> list[dict[str, str]]:
    """Return the gallery's columns: every stage that makes a picture."""
    titles = {"reference": "Reference image", "base": "Low-res", "interpolate": "Interpolated", "decode": "Decoded"}
    titles |= {name: f"Up{name[2:].replace('_', ' ')}d" for name in config.upsample_names()}
    titles |= {config.stage_names()[-1]: "Final"}
    shapes = _shapes(config)
    return [
        {"key": name, "title": titles.get(name, _plain(name)), "shape": shapes.get(name, "")}
        for name in config.stage_names()
        if name != "text"
    ]


def _plain(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _shapes(config: CascadeConfig) -> dict[str, str]:
    """Return the size of what the stages make, in words for people; those of stages that are not known here are not."""
    side, channels = config.resolution, config.autoencoder.model.latent_channels
    sizes = dict(zip(config.diffusion_stages(), config.latent_sizes, strict=True))
    shapes = {"text": f"{config.text.max_length} tokens", "reference": f"{side} x {side} px"}
    shapes |= {name: f"{config.num_frames} x {channels} x {size} x {size}" for name, size in sizes.items()}
    last = config.latent_sizes[-1]
    shapes["interpolate"] = f"{config.num_output_frames} x {channels} x {last} x {last}"
    shapes |= dict.fromkeys(("decode", config.stage_names()[-1]), f"{config.num_output_frames} x {side} x {side} px")
    return shapes


def _describe(config: CascadeConfig, folder: str) -> dict[str, Any]:
    """Return name, trained models and stages with their part in the cascade; new stages say it in their docstring."""
    what = {
        "text": "CLIP text encoder",
        "reference": "draws one image",
        "base": "sets it in motion",
        "interpolate": "flow between key frames",
        "decode": "temporal decoder",
    }
    what |= dict.fromkeys(config.upsample_names(), "latent super-resolution")
    shapes = _shapes(config)
    stages = [
        {
            "name": name,
            "what": what.get(name) or _summary(name),
            "shape": shapes.get(name, ""),
            "media": "prompt" if name == "text" else name,
            "parameters": count_parameters(Path(folder) / ("text_encoder" if name == "text" else name)),
        }
        for name in config.stage_names()
    ]
    return {"name": config.name, "trained": config.trainable_stages(), "stages": stages}


def _summary(stage: str) -> str:
    """Return the first line of what the stage's class says of itself."""
    from videogen.stages import stage_class

    return (inspect.getdoc(stage_class(stage)) or "").partition("\n")[0].rstrip(".")


def count_parameters(folder: Path) -> int:
    """Return the numbers in a component's safetensors files, read from their headers; a pipeline's U-Net only."""
    from safetensors import safe_open

    files = list(folder.glob("*.safetensors")) or list((folder / "unet").glob("*.safetensors"))
    total = 0
    for file in files:
        with safe_open(file, "np") as opened:
            total += sum(math.prod(opened.get_slice(key).get_shape()) for key in opened.keys())  # noqa: SIM118
    return total


def _lead(config: CascadeConfig) -> str:
    side, last = config.latent_sizes[0], config.resolution
    return (
        f"Every video below was made from its sentence alone: {config.num_frames} key frames at {config.fps:g} a "
        f"second, as latents of {side} x {side}, then {config.num_output_frames} frames at {config.output_fps:g} a "
        f"second in {last} x {last} pixels."
    )


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.0f} s"


def in_words(number: int) -> str:
    """Return a small number as a word, as in running text."""
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    return words[number] if number < len(words) else str(number)


def count_short(number: int) -> str:
    """Return 1234567 as "1.2 M"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)
