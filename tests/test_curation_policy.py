"""Policies: rules in words, checked before any work, and applied to tables."""

import pyarrow as pa
import pytest

from videogen.data.curation import Policy
from videogen.data.tables import Conditions
from videogen.errors import UserError

SCHEMA = pa.schema(
    [
        pa.field("motion", pa.float32()),
        pa.field("sharpness", pa.float32()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("codec", pa.string()),
        pa.field("has_audio", pa.bool_()),
        pa.field("duplicate_of", pa.string()),
    ]
)


@pytest.mark.parametrize(
    ("text", "name", "expression"),
    [
        ("motion >= 0.3", "motion >= 0.3", "motion >= 0.3"),
        ("  motion   >=\n0.3 ", "motion >= 0.3", "motion   >=\n0.3"),
        ("lively=motion >= 0.3", "lively", "motion >= 0.3"),
        ("lively = motion >= 0.3", "lively", "motion >= 0.3"),
        ("wide=(width > height)", "wide", "(width > height)"),
        ("quiet=not has_audio", "quiet", "not has_audio"),
        ("codec='h264'", "codec='h264'", "codec='h264'"),
        ("codec='a=b'", "codec='a=b'", "codec='a=b'"),
        ("duplicate_of = ''", "duplicate_of = ''", "duplicate_of = ''"),
        ("width == height", "width == height", "width == height"),
        ("width=512 or width=256", "width=512 or width=256", "width=512 or width=256"),
        ("codec='h264' or codec='vp9'", "codec='h264' or codec='vp9'", "codec='h264' or codec='vp9'"),
        ("has_audio=true", "has_audio=true", "has_audio=true"),
    ],
)
def test_a_rule_is_a_condition_or_a_name_and_a_condition(text, name, expression):
    policy = Policy.of([text])
    assert dict(policy.rules) == {name: expression}
    policy.check(SCHEMA)


def test_rules_keep_their_order_and_judge():
    policy = Policy.of(["lively=motion >= 0.3", "sharpness > 10", "new=duplicate_of = ''"])
    policy.check(SCHEMA)
    assert list(policy.rules) == ["lively", "sharpness > 10", "new"]
    rows = [
        {"motion": 0.5, "sharpness": 20.0, "duplicate_of": ""},
        {"motion": None, "sharpness": 5.0, "duplicate_of": "other"},
    ]
    batch = pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
    with Conditions(policy.rules, SCHEMA) as conditions:
        passed = {name: flags.to_pylist() for name, flags in conditions(batch).items()}
    assert passed == {"lively": [True, False], "sharpness > 10": [True, False], "new": [True, False]}


@pytest.mark.parametrize(
    ("texts", "named"),
    [
        ([""], "empty"),
        (["  "], "empty"),
        (["motion > 1", "motion  >  1"], "motion > 1"),
        (["a=motion > 1", "a=sharpness > 1"], "'a'"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(texts, named):
    with pytest.raises(UserError, match=named):
        Policy.of(texts)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("moton >= 0.3", "motion"),
        ("lively=moton >= 0.3", "lively"),
        ("motion >=", "motion >="),
        ("motion", "true or false"),
        ("width=height and motion > 1", "named like the column 'width'"),
        ("(select 1) = 1", "SELECT"),
    ],
)
def test_a_rule_that_cannot_be_judged_is_refused_before_any_work(text, named):
    with pytest.raises(UserError) as caught:
        Policy.of([text]).check(SCHEMA)
    assert named in str(caught.value)
    assert str(caught.value).count("\n") == 0
