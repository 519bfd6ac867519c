"""Scripts in `examples/`: each runs as its docstring says and writes what it promises."""

import runpy
import sys
from pathlib import Path

import pytest

from videogen.data.curation.scores import SCORES
from videogen.data.video import probe, read_frames

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture
def run_example(monkeypatch, capsys):
    """Run a script as `python examples/NAME.py ARGUMENTS` would; return its output."""
    before = dict(SCORES)

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    yield run
    SCORES.clear()
    SCORES.update(before)


def test_generate_video_writes_a_playable_file(run_example, tiny_model, tiny, tmp_path):
    output = tmp_path / "video.mp4"
    printed = run_example("generate_video", "--model", tiny_model, "--output", output)
    info = probe(str(output))
    assert (info.num_frames, info.width, info.height) == (tiny.num_output_frames, tiny.resolution, tiny.resolution)
    assert str(output) in printed


def test_own_score_has_one_line_a_clip(run_example, camera_clip):
    printed = run_example("own_score", camera_clip)
    lines = printed.splitlines()
    assert lines
    assert all("colourfulness" in line and "motion" in line for line in lines)
    values = [float(line.split("colourfulness")[1].split()[0]) for line in lines]
    assert all(0 < value < 250 for value in values), "a colour video is colourful"


def test_own_stage_changes_the_frames_of_the_model(run_example, tiny_model, tmp_path):
    plain, bright = tmp_path / "plain.mp4", tmp_path / "bright.mp4"
    run_example("own_stage", "--model", tiny_model, "--gamma", 1, "--output", plain)
    run_example("own_stage", "--model", tiny_model, "--gamma", 0.3, "--output", bright)
    frames = [read_frames(str(path), range(probe(str(path)).num_frames), 64) for path in (plain, bright)]
    assert frames[1].mean() > frames[0].mean() + 20


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_docstring_shows_the_command(script):
    assert f"python examples/{script.name}" in script.read_text().partition('"""')[2].partition('"""')[0]
