"""The report: one file with everything inside, and right about what it shows."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from tests._page import Page
from tests.conftest import load_job
from videogen.data.synthetic import Attributes, render_clip
from videogen.data.video import write_mp4
from videogen.evaluation.evaluate import score_videos
from videogen.evaluation.faithfulness import ATTRIBUTES, confusion, summarise
from videogen.evaluation.psnr import StagePsnr
from videogen.reporting.cascade.gallery import sprite
from videogen.reporting.cascade.page import ReportSources, render
from videogen.reporting.cascade.training_curves import read_training_curve
from videogen.reporting.charts import draw_loss

_SHOWN = [
    ("a red circle moving left", Attributes("red", "circle", "left")),
    ("a green triangle moving down <quickly>", Attributes("green", "circle", "down")),
    ("a green triangle moving down", Attributes("green", "circle", "down")),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, tiny_model: str, tiny) -> Path:
    """Write a report about three videos and six losses; return its file."""
    folder = tmp_path_factory.mktemp("report")
    shutil.copytree(tiny_model, folder / "model")
    generated = folder / "generated"
    (generated / "videos").mkdir(parents=True)
    (generated / "intermediates").mkdir()
    rows = []
    for number, (prompt, attributes) in enumerate(_SHOWN):
        video = generated / "videos" / f"{number}.mp4"
        frames = render_clip(attributes, number)
        video.write_bytes(write_mp4(frames, 16))
        small, large = (
            np.zeros((tiny.num_frames, tiny.autoencoder.model.latent_channels, size, size), np.float32)
            for size in tiny.latent_sizes
        )
        arrays = {"reference.reference_image": frames[0], "base.latents": small, "upsample.latents": large}
        arrays["interpolate.latents"] = np.repeat(large, 2, axis=0)[: tiny.num_output_frames]
        save_file(arrays, generated / "intermediates" / f"{number}.safetensors")
        row = {"id": str(number), "prompt": prompt, "seed": number, "video": str(video), "status": "ok", "error": ""}
        rows.append(row | {"num_frames": 15, "fps": 16.0, "width": 64, "height": 64})
    pd.DataFrame(rows).to_parquet(generated / "manifest.parquet")
    scores, _ = score_videos(tiny, rows)
    psnr = vars(StagePsnr(2, 31.5, 30.0, 29.5, 27.0, 30.5))
    evaluation = {
        **summarise(scores),
        **psnr,
        "num_prompts": len(scores),
        "ceilings": {**summarise(scores[:1]), "num_clips": 1},
        "corpora": {"camera": psnr},
        "confusions": {name: confusion(scores, name) for name in ATTRIBUTES},
        "prompts": scores,
    }
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    for stage in tiny.trainable_stages():
        log = folder / "model" / "training" / stage / "metrics.jsonl"
        log.parent.mkdir(parents=True)
        lines = [{"step": step, "samples": 4 * step, "loss": 1 / step, "samples_per_s": 8.0} for step in range(1, 40)]
        log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "timings.json").write_text(json.dumps({"make_corpus": 12.5, "train_cascade": 600}))
    names = {"--model": "model", "--generated": "generated", "--evaluation": "evaluation.json"}
    names |= {"--timings": "timings.json", "--output": "report"}
    load_job("report").main([word for option, name in names.items() for word in (option, str(folder / name))])
    return folder / "report" / "index.html"


def test_the_page_is_whole_and_needs_nothing_else(page: Path) -> None:
    text = page.read_text()
    parsed = Page(text)
    assert not parsed.open
    assert not re.search(r"\w+://", re.sub(r"base64,[\w+/=]+", "", text))
    for tag, attributes in parsed.elements:
        assert tag not in ("link", "iframe", "object", "embed")
        for name in ("src", "href", "srcset", "poster", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert "@import" not in text
    assert "url(" not in text


def test_the_page_shows_every_stage_of_every_prompt(page: Path, tiny) -> None:
    parsed = Page(page.read_text())
    pictures = [attributes["data-media"] for tag, attributes in parsed.elements if tag == "canvas"]
    shown = [name for name in tiny.stage_names() if name != "text"]
    assert {f"{number}/{name}" for number in range(3) for name in shown} == set(pictures)
    rows = [attributes["class"] for tag, attributes in parsed.elements if tag == "article"]
    assert rows == ["example correct", "example unscored", "example wrong"]
    # Prompts are people's text: shown, never markup.
    assert "moving down <quickly>" in parsed.text
    curves = [attributes for tag, attributes in parsed.elements if attributes.get("class") == "chart"]
    assert len(curves) == len(tiny.trainable_stages())
    for words in ("50%", "+1.50", "+2.50", "linear blend", "612.5"):
        assert words in parsed.text.replace("\n", ""), words


def test_a_report_is_written_again_only_if_a_source_has_changed(page: Path, capsys) -> None:
    folder = page.parent.parent
    names = {"--model": "model", "--generated": "generated", "--evaluation": "evaluation.json"}
    names |= {"--timings": "timings.json", "--output": "report"}
    written = page.stat().st_mtime_ns
    load_job("report").main([word for option, name in names.items() for word in (option, str(folder / name))])
    assert "up to date" in capsys.readouterr().out
    assert page.stat().st_mtime_ns == written


def test_a_sprite_holds_the_frames_in_reading_order() -> None:
    import base64
    import io

    from PIL import Image

    frames = np.stack([np.full((16, 16, 3), 40 * index, np.uint8) for index in range(6)])
    sheet = sprite(frames, fps=8)
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet["src"].partition(",")[2]))).convert("RGB"))
    for index in range(6):
        row, column = divmod(index, sheet["columns"])
        assert abs(int(image[row * 16 + 8, column * 16 + 8, 0]) - 40 * index) < 4


def test_curves_survive_resumed_and_broken_logs(tmp_path: Path) -> None:
    assert read_training_curve(str(tmp_path), "base") is None
    (tmp_path / "base").mkdir()
    lines = [(1, 1.0), (2, float("nan")), (3, 0.5), (3, 0.25)]
    text = "".join(
        json.dumps({"step": step, "samples": step, "loss": loss, "samples_per_s": 1.0}) + "\n" for step, loss in lines
    )
    (tmp_path / "base" / "metrics.jsonl").write_text(text)
    curve = read_training_curve(str(tmp_path), "base")
    assert curve is not None
    assert list(curve.losses) == [1.0, 0.25]
    assert "polyline" in curve.view()["chart"]
    assert "nan" not in draw_loss("<b>", [1, 2], [0.0, 0.0], 0.0)
    assert "<b>" not in draw_loss("<b>", [1, 2], [1.0, 0.5], 0.5)


def test_a_video_that_is_gone_or_broken_is_said_in_its_row(page: Path, tiny, tiny_model: str, tmp_path: Path) -> None:
    folder = page.parent.parent
    rows = pd.read_parquet(folder / "generated" / "manifest.parquet").to_dict("records")
    (tmp_path / "broken.mp4").write_text("no video")
    rows[0]["video"], rows[1]["video"] = str(tmp_path / "gone.mp4"), str(tmp_path / "broken.mp4")
    evaluation = json.loads((folder / "evaluation.json").read_text())
    sources = ReportSources(tiny_model, str(folder / "generated"), evaluation, rows)
    text = Page(render(tiny, sources, tiny_model)).text
    assert "gone.mp4" in text
    assert text.count("video: ") == 2
