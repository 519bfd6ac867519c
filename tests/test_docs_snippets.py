"""Python snippets in the documents: each runs, with the model or the table that a comment above it asks for.

`<!-- snippet: model -->` asks for an untrained model in runs/demo/model, `<!-- snippet: latents -->` for a table in
runs/demo/latents/captioned. Snippets that ask for a service run in tests/test_serve_api.py.
"""

from pathlib import Path

import pytest

from tests._documents import DOCUMENTS, fences

SNIPPETS = [fence for path in DOCUMENTS for fence in fences(path) if fence.language == "python"]
SETUPS = {"": None, "model": "tiny_model", "latents": "latents_table", "service": None}


@pytest.fixture
def demo_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return runs/demo of an empty working directory."""
    monkeypatch.chdir(tmp_path)
    demo = tmp_path / "runs" / "demo"
    (demo / "latents").mkdir(parents=True)
    return demo


def test_snippets_ask_for_what_there_is():
    assert SNIPPETS
    assert {snippet.setup for snippet in SNIPPETS} <= set(SETUPS)


def _of(*setups: str) -> pytest.MarkDecorator:
    chosen = [snippet for snippet in SNIPPETS if snippet.setup in setups]
    return pytest.mark.parametrize("snippet", chosen, ids=lambda snippet: snippet.name)


@_of("")
def test_snippets_run(snippet, demo_folder):
    exec(compile(snippet.text, snippet.name, "exec"), {"__name__": "snippet"})


@pytest.mark.model
@_of("model")
def test_snippets_run_with_a_model(snippet, demo_folder, tiny_model):
    (demo_folder / "model").symlink_to(tiny_model)
    exec(compile(snippet.text, snippet.name, "exec"), {"__name__": "snippet"})


@_of("latents")
def test_snippets_run_with_a_table(snippet, demo_folder, latents_table):
    (demo_folder / "latents" / "captioned").symlink_to(latents_table)
    exec(compile(snippet.text, snippet.name, "exec"), {"__name__": "snippet"})
