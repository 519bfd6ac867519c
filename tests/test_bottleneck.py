"""Detection of the operator that limits a pipeline."""

from pipelines.runner.bottleneck import Bottleneck


def test_one_operator_is_no_bottleneck_and_nothing_done_tells_nothing():
    alone = Bottleneck({"analyse_s": 4})
    alone.add({"analyse_s": 9.0})
    assert alone.operator is None
    assert Bottleneck({"decode_s": 4, "encode_s": 1}).operator is None


def test_it_is_the_one_whose_workers_have_most_to_do_not_the_one_with_most_workers():
    found = Bottleneck({"decode_s": 56, "encode_s": 8})
    found.add({"decode_s": 30.0, "encode_s": 10.0})
    assert found.operator == "encode"


def test_it_is_that_of_the_last_minute(monkeypatch):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    found = Bottleneck({"decode_s": 1, "encode_s": 1})
    for second in range(600):
        now = float(second)
        found.add({"decode_s": 2.0, "encode_s": 1.0})
    assert found.operator == "decode"
    for second in range(600, 650):
        now = float(second)
        found.add({"encode_s": 3.0})
    assert found.operator == "encode"
