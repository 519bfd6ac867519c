"""The prompts table: what a row may say, what it is called, and one clear sentence for each way to get it wrong."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.generate.payload import keep, kept, needed_after, pack, unpack
from pipelines.generate.prompts import read_requests, request_of
from videogen.errors import UserError


def _parquet(folder: Path, **columns: list[object]) -> str:
    path = folder / "prompts.parquet"
    pd.DataFrame(columns).to_parquet(path)
    return str(path)


def test_ids_and_seeds_follow_from_the_row_alone(tmp_path: Path) -> None:
    prompts = ["a red circle moving left", "a blue square moving up"]
    forward = read_requests(_parquet(tmp_path, prompt=prompts))
    backward = read_requests(_parquet(tmp_path, prompt=prompts[::-1]))
    assert forward == backward[::-1]
    assert len({request.id for request in forward} | {str(request.seed) for request in forward}) == 4


def test_given_ids_and_seeds_are_kept(tmp_path: Path) -> None:
    requests = read_requests(_parquet(tmp_path, prompt=["a", "a"], id=[7, 8], seed=[1, None]))
    assert [request.id for request in requests] == ["7", "8"]
    assert requests[0].seed == 1
    assert requests[1].seed > 2**32


def test_a_folder_of_parquet_files_is_one_table(tmp_path: Path) -> None:
    for name in ("x", "y"):
        pd.DataFrame({"prompt": [name]}).to_parquet(tmp_path / f"{name}.parquet")
    assert [request.prompt for request in read_requests(str(tmp_path))] == ["x", "y"]
    pd.DataFrame({"prompt": ["z"], "seed": [1]}).to_parquet(tmp_path / "z.parquet")
    with pytest.raises(UserError, match="same columns"):
        read_requests(str(tmp_path))


@pytest.mark.parametrize("change", [{"prompt": "b"}, {"negative_prompt": "n"}, {"seed": 3}, {"reference_image": b"x"}])
def test_every_part_of_a_request_changes_its_digest_and_id(change: dict[str, object]) -> None:
    first, second = request_of({"prompt": "a"}), request_of({"prompt": "a", **change})
    assert first.digest != second.digest
    assert first.id != second.id


@given(st.text(min_size=1).filter(str.strip), st.one_of(st.none(), st.integers(0, 2**63 - 1)))
def test_any_sentence_gives_a_usable_request(prompt: str, seed: int | None) -> None:
    request = request_of({"prompt": prompt, "seed": seed})
    assert request.prompt == prompt
    assert 0 <= request.seed < 2**63
    assert request.id.isalnum()


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"text": ["a"]}, ["'prompt'", "'text'"]),
        ({"prompts": ["a"]}, ["Did you mean 'prompts'"]),
        ({"prompt": []}, ["no rows"]),
        ({"prompt": ["a", "  "]}, ["row 2", "prompt"]),
        ({"prompt": ["a", ""], "id": ["x", "y"]}, ["row 2", "'y'"]),
        ({"prompt": ["a", None]}, ["row 2", "prompt"]),
        ({"prompt": ["a", "b"], "id": ["x", "x"]}, ["row 2", "'x'", "another id"]),
        ({"prompt": ["a", "a"]}, ["row 2", "seed"]),
        ({"prompt": ["a"], "id": ["../x"]}, ["'../x'", "file"]),
        ({"prompt": ["a"], "seed": [-1]}, ["-1", "whole number"]),
        ({"prompt": ["a"], "seed": [1.5]}, ["1.5", "whole number"]),
        ({"prompt": ["a"], "seed": ["one"]}, ["'one'", "whole number"]),
        ({"prompt": ["a"], "seed": [float("inf")]}, ["inf", "whole number"]),
        ({"prompt": ["a"], "negative_prompt": [3]}, ["negative_prompt", "3"]),
        ({"prompt": ["a"], "reference_image": [3]}, ["reference_image", "int"]),
    ],
)
def test_bad_tables_are_refused_in_one_sentence(tmp_path: Path, columns: dict[str, list], words: list[str]) -> None:
    with pytest.raises(UserError) as refusal:
        read_requests(_parquet(tmp_path, **columns))
    sentence = str(refusal.value)
    assert all(word in sentence for word in words), sentence
    assert "\n" not in sentence


def test_files_that_are_missing_or_not_parquet_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_requests(str(tmp_path / "none.parquet"))
    with pytest.raises(UserError, match="empty folder"):
        read_requests(str(tmp_path))
    (tmp_path / "prompts.csv").write_text("prompt\na\n")
    with pytest.raises(UserError, match="not a parquet file"):
        read_requests(str(tmp_path / "prompts.csv"))
    with pytest.raises(UserError, match="folder without"):
        read_requests(str(tmp_path))


def test_samples_carry_only_what_later_stages_read() -> None:
    import numpy as np

    after = needed_after([("prompt",), ("embeds",), ("embeds", "latents"), ("latents",)])
    assert after == [{"embeds", "latents"}, {"embeds", "latents"}, {"latents"}, set()]
    produced = {"latents": np.arange(6, dtype=np.float32).reshape(2, 3)}
    sample = {"prompt": "a", "embeds": np.ones(3), **produced}
    keep(sample, "base", produced)
    carried = unpack(pack(sample, after[2]))
    assert "embeds" not in carried
    np.testing.assert_array_equal(carried["latents"], produced["latents"])
    np.testing.assert_array_equal(kept(carried)["base.latents"], produced["latents"])
