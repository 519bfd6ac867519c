"""Looking into tables: what is printed is what is there, and the sheet shows the right pictures."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from tests._tables import clips_table, latents_table
from tests.conftest import load_job
from videogen import storage
from videogen.data.datasets import open_table
from videogen.data.synthetic import all_attributes, render_clip
from videogen.data.video import write_mp4
from videogen.errors import UserError
from videogen.reporting.contact_sheet import false_colour
from videogen.reporting.formatting import in_bytes
from videogen.reporting.table.summary import summarise


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips") / "table"
    rows = clips_table(folder, ["s3://b/0.mp4", "s3://b/1.mp4", "s3://b/[red]2.mp4", "s3://b/3.mp4"])
    return folder, rows


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latents")
    sources = []
    for number in range(3):
        path = folder / f"{number}.mp4"
        path.write_bytes(write_mp4(render_clip(all_attributes()[number], number), 16))
        sources.append(str(path))
    (folder / "2.mp4").unlink()
    return folder / "table", latents_table(folder / "table", sources)


def inspected(capsys, *arguments):
    load_job("inspect_table").main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def test_a_table_is_summed_up(clips):
    folder, rows = clips
    summary = summarise(open_table(str(folder)))
    assert (summary.kind, summary.num_selected) == ("clips", len(rows))
    assert summary.counts == {"planned": 4, "ok": 3, "filtered": 0, "failed": 1, "rows": 6}
    assert summary.num_bytes == sum(path.stat().st_size for path in (folder / "shards").iterdir())
    motion = next(column for column in summary.statistics if column.name == "motion")
    values = np.array([row["motion"] for row in rows], np.float32)
    assert motion.quantiles == pytest.approx(np.percentile(values, (0, 5, 50, 95, 100)))
    assert motion.mean == pytest.approx(values.mean())
    sharpness = next(column for column in summary.statistics if column.name == "sharpness")
    assert (sharpness.num_values, sharpness.num_missing) == (3, 3)
    assert summary.dropped == {"": 5, "still": 1}
    (reason,) = summary.reasons
    assert (reason.stage, reason.num_inputs, reason.example) == ("probe", 1, "s3://b/3.mp4")
    assert reason.error == "it has N frames, fewer than the N of a clip"
    places = {name: place for name, _, place in summary.columns}
    assert (places["motion"], places["thumbnail"], places["dropped_by"]) == ("index, shard", "shard", "index")


def test_an_expression_chooses_the_rows(clips, capsys):
    folder, rows = clips
    chosen = [row for row in rows if row["motion"] > 0.32]
    summary = summarise(open_table(str(folder)), "motion > 0.32")
    assert summary.num_selected == len(chosen) < len(rows)
    assert next(column for column in summary.statistics if column.name == "motion").quantiles[0] > 0.32
    printed = inspected(capsys, folder, "--where", "motion > 0.32", "--row", 1)
    assert chosen[1]["clip_id"] in printed
    assert "JPEG" in printed
    assert inspected(capsys, folder, "--where", "motion > 9")


def test_names_are_printed_as_they_are(clips, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    folder, rows = clips
    printed = inspected(capsys, folder, "--row", 4)
    assert rows[4]["source"] == "s3://b/[red]2.mp4"
    assert "s3://b/[red]2.mp4" in printed
    for words in ("4 planned", "1 failed", "motion", "still", "fewer than the N", "3 shards|2 shards|1 shards"):
        assert re.search(words, printed), words


def test_latents_are_described_by_shape_and_range(latents, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    folder, told = latents
    printed = inspected(capsys, folder, "--row", 2)
    assert "float16 (15, 4, 8, 8)" in printed
    assert f"{told[2]['latents_8'].astype(float).max():.3g}" in printed


def test_the_sheet_of_clips_shows_their_thumbnails(clips, tmp_path, capsys):
    folder, rows = clips
    inspected(capsys, folder, "--sheet", tmp_path / "new" / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "new" / "sheet.png").convert("RGB"))
    levels = [int(np.asarray(Image.open(io.BytesIO(row["thumbnail"])).convert("RGB"))[0, 0, 0]) for row in rows]
    height = len(sheet) // len(rows)
    assert [int(sheet[height * index + height // 2, 50, 0]) for index in range(len(rows))] == levels


def test_the_sheet_of_latents_shows_source_and_false_colours(latents, s3, capsys):
    folder, told = latents
    inspected(capsys, folder, "--sheet", f"{s3}/sheet.png")
    sheet = np.asarray(Image.open(io.BytesIO(storage.read_bytes(f"{s3}/sheet.png"))).convert("RGB")).astype(int)
    first = np.asarray(Image.fromarray(render_clip(all_attributes()[0], 0)[0]).resize((128, 128))).astype(int)
    assert np.abs(sheet[6:134, 6:134] - first).mean() < 12
    cells = false_colour(told[0]["latents_4"])[0]
    shown = sheet[140 : 140 + 128, 6:134][16::32, 16::32]
    assert np.array_equal(shown, cells)
    # The source of the last row is gone: its latents are shown alone.
    height = 2 * (6 + 128) + 6
    last = sheet[2 * height :]
    assert len(last) < height
    assert np.array_equal(last[6:134, 6:134][16::32, 16::32], false_colour(told[2]["latents_4"])[0])


def test_the_sheet_spreads_its_rows_over_the_table(clips):
    from videogen.reporting.contact_sheet import render_png

    folder, rows = clips
    sheet = Image.open(io.BytesIO(render_png(open_table(str(folder)), num_rows=2)))
    one = Image.open(io.BytesIO(render_png(open_table(str(folder)), num_rows=1)))
    assert sheet.height == 2 * one.height
    levels = [int(np.asarray(sheet)[one.height * index + 60, 50, 0]) for index in range(2)]
    expected = [np.asarray(Image.open(io.BytesIO(rows[index]["thumbnail"])))[0, 0, 0] for index in (0, 3)]
    assert levels == [int(level) for level in expected]


def test_false_colours_use_the_whole_range_of_each_channel():
    latents = np.random.default_rng(0).normal(5, 3, (2, 4, 16, 16)).astype(np.float16)
    picture = false_colour(latents)
    assert picture.shape == (2, 16, 16, 3)
    assert picture.dtype == np.uint8
    assert (picture.min(axis=(0, 1, 2)) == 0).all()
    assert (picture.max(axis=(0, 1, 2)) == 255).all()
    assert false_colour(latents[:, :1]).shape == (2, 16, 16, 3)
    assert np.isfinite(false_colour(np.zeros((1, 4, 2, 2)))).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{missing}"], "does not exist"),
        (["{empty}"], "holds no manifest.json"),
        (["{other}"], "has schema version None"),
        (["{clips}", "--where", "moton > 1"], "motion"),
        (["{clips}", "--row", "6"], "from 0 to 5"),
        (["{clips}", "--row", "-1"], "from 0 to 5"),
        (["{clips}", "--where", "motion > 9", "--row", "0"], "no row"),
        (["{clips}", "--where", "motion > 9", "--sheet", "{o}.png"], "no row to show"),
        (["{clips}", "--sheet", "{o}.jpg"], r"ends in \.png"),
        (["{clips}", "--sheet", "{o}.png", "--sheet-rows", "0"], "from 1"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(clips, tmp_path, arguments, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("x")
    storage.write_json(str(tmp_path / "other" / "manifest.json"), {"kind": "clips"})
    names = {name: tmp_path / name for name in ("missing", "empty", "other", "o")} | {"clips": clips[0]}
    with pytest.raises(UserError, match=words) as caught:
        load_job("inspect_table").main([argument.format(**names) for argument in arguments])
    assert "\n" not in str(caught.value)


def test_bytes_in_words():
    assert [in_bytes(number) for number in (0, 999, 1500, 2.5e9)] == ["0 bytes", "999 bytes", "1.5 kB", "2.5 GB"]
