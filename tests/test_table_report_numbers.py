"""Numbers of the table report: bars, steps, rates, and a survey of any number of rows."""

import numpy as np
import pyarrow as pa
import pytest

from tests._page import Page
from videogen.data.datasets.clips_schema import CLIPS
from videogen.data.tables import PublishedTable, write_index
from videogen.reporting import formatting
from videogen.reporting.charts import Mark, draw_histogram, draw_progress, draw_rate, rates_over_time
from videogen.reporting.column_statistics import ColumnStatistics, Histogram
from videogen.reporting.formatting import round_step
from videogen.reporting.run_log import Sample
from videogen.reporting.table.survey import survey

# --- drawings ----------------------------------------------------------------------------------------------------


def test_bars_are_as_high_as_their_counts():
    statistics = ColumnStatistics(6)
    values = np.array([0.0, 0.0, 0.0, 0.5, 1.0, 1.0])
    statistics.add(0, values, np.ones(6, bool))
    histogram = Histogram.of("x & y", statistics)
    histogram.add(values, np.array([True, True, False, True, False, False]))
    drawn = Page(str(draw_histogram(histogram, [Mark(0.5, "<= 0.5"), Mark(9.0, "outside")])))
    heights = {
        kind: [float(r["height"]) for r in drawn.all("rect") if r["class"] == kind] for kind in ("kept", "dropped")
    }
    assert heights["kept"] == pytest.approx([2 * heights["kept"][1], heights["kept"][1]], abs=0.2)
    assert heights["dropped"] == pytest.approx([heights["kept"][1], heights["kept"][0]], abs=0.2)
    assert drawn.has("<= 0.5")
    assert not drawn.has("outside")
    assert drawn.all("svg")[0]["aria-label"].startswith("x & y")


def test_far_values_do_not_squeeze_the_others():
    values = np.concatenate([np.linspace(0, 1, 999), [1e6]])
    statistics = ColumnStatistics(1000)
    statistics.add(0, values, np.ones(1000, bool))
    histogram = Histogram.of("x", statistics)
    histogram.add(values, np.ones(1000, bool))
    assert histogram.edges[-1] < 2
    assert histogram.greatest == 1e6
    assert histogram.kept.sum() == 1000
    assert np.count_nonzero(histogram.kept) > 20


def test_rates_add_up_to_what_was_done():
    samples = [Sample(0, 0, 0, 0, 0), Sample(1.5, 3, 3, 0, 0), Sample(2, 10, 8, 1, 1), Sample(10, 12, 9, 1, 2)]
    seconds, rates = rates_over_time(samples)
    assert seconds[-1] == 10
    assert sum(rate * span for rate, span in zip(rates, np.diff(seconds), strict=True)) == pytest.approx(12)
    progress = Page(str(draw_progress(samples, "clips")))
    assert [shape["class"] for shape in progress.all("polygon")] == ["ok", "filtered", "failed"]
    assert Page(str(draw_rate(samples, "clips"))).all("svg")[0]["aria-label"] == "clips a second, 1.2 on average"


@pytest.mark.parametrize(("span", "parts", "step"), [(1, 40, 0.025), (255, 40, 10), (7, 4, 2), (3e-5, 5, 1e-5)])
def test_steps_are_round(span, parts, step):
    assert round_step(span, parts) == pytest.approx(step)


def test_numbers_are_told_as_people_do():
    assert [formatting.percent(*pair) for pair in ((1, 3), (1, 5000), (4999, 5000), (5, 5), (0, 0))] == [
        "33.3 %",
        "< 0.1 %",
        "> 99.9 %",
        "100 %",
        "0 %",
    ]
    assert [formatting.duration(s) for s in (0.42, 59.7, 185, 7620)] == [
        "0.4 s",
        "1 min 00 s",
        "3 min 05 s",
        "2 h 07 min",
    ]
    assert [formatting.rate(*pair) for pair in ((600, 5), (3, 60), (2, 7200), (0, 5))] == [
        "120 a second",
        "3 a minute",
        "1 an hour",
        "none",
    ]


# --- a large index -----------------------------------------------------------------------------------------------


def test_a_survey_does_not_depend_on_batches(tmp_path):
    num_rows = 150_000  # three batches, and too many for every value to be in the sample
    random = np.random.default_rng(0)
    score = random.normal(size=num_rows).astype(np.float32)
    score[::1000] = np.nan
    dropped = np.where(random.random(num_rows) < 0.3, "rule", "")
    frame = pa.table(
        {
            "score": pa.array(score, mask=random.random(num_rows) < 0.01),
            "same": np.full(num_rows, 16, np.int32),
            "codec": pa.array(np.where(score > 0, "h264", "av1")),
            "dropped_by": pa.array(dropped),
            "shard": np.zeros(num_rows, np.int32),
            "row": np.arange(num_rows, dtype=np.int32),
        }
    )
    manifest = {"kind": "clips", "counts": {"rows": num_rows}, "shards": []}
    manifest["index"] = write_index(str(tmp_path), frame.to_batches(max_chunksize=7000))
    found = survey(PublishedTable(str(tmp_path), manifest, CLIPS), ["rule", "idle"], 24, 12)
    (histogram,) = found.histograms
    values = frame["score"].to_numpy().astype(float)
    known = np.isfinite(values)
    assert histogram.missing == (~known).sum()
    assert histogram.kept.sum() == (known & (dropped == "")).sum()
    assert histogram.dropped.sum() == (known & (dropped == "rule")).sum()
    assert histogram.median == pytest.approx(np.median(values[known]), abs=0.02)
    assert found.constants == {"same": 16}
    assert found.values["codec"] == {"h264": (score > 0).sum(), "av1": (~(score > 0)).sum()}
    for group, most in (("", 24), ("rule", 12)):
        rows = np.flatnonzero(dropped == group)
        assert found.sampled[group] == [(0, rows[place * len(rows) // most]) for place in range(most)]
    assert found.sampled["idle"] == []
