"""Generated reference, decision pages and result files: complete, and what the code says now."""

import importlib
import json
import re

import pyarrow as pa
import pytest

from pipelines.generate.manifest import MANIFEST_COLUMNS, MANIFEST_SCHEMA
from tests._documents import ROOT
from tools.reference import configuration, environment, python_api, tables
from tools.reference.pages import render_pages
from tools.result_files import FIELDS
from videogen.data.datasets import columns
from videogen.data.datasets.clips_schema import clips_schema
from videogen.data.datasets.latents_schema import array_columns
from videogen.data.tables import ERRORS_SCHEMA

DECISIONS = sorted(path for path in (ROOT / "docs/explanation/decisions").glob("*.md") if path.name != "index.md")
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
PAGES = render_pages()


# --- decisions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_has_date_context_decision_and_consequence(page):
    text = page.read_text()
    assert re.findall(r"^## (.+)$", text, re.MULTILINE)[:3] == ["Context", "Decision", "Consequence"]
    date = re.search(r"^\*\*Date:\*\* (\d{4}-\d{2}-\d{2})$", text, re.MULTILINE)
    assert date, f"{page.name} has no line **Date:** YYYY-MM-DD"
    index = (page.parent / "index.md").read_text()
    assert re.search(rf"\({re.escape(page.name)}\) \| {date[1]} \|", index), f"index.md does not list {page.name}"


# --- the generated reference -------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_the_reference_is_what_the_code_says(page):
    path = ROOT / page
    assert path.exists(), f"{page} is missing: run `make reference`"
    assert path.read_text() == PAGES[page], f"{page} is stale: run `make reference`"


def test_every_configuration_key_is_described():
    assert configuration.undocumented() == []


@pytest.mark.parametrize(
    ("schema", "described"),
    [
        (clips_schema(()), columns.CLIPS),
        (tables.added_by_index(), columns.CLIPS_INDEX),
        (tables.latents_scalars(), columns.LATENTS),
        (ERRORS_SCHEMA, columns.ERRORS),
        (MANIFEST_SCHEMA, MANIFEST_COLUMNS),
    ],
    ids=["clips", "clips index", "latents", "errors", "generated"],
)
def test_every_column_is_described(schema: pa.Schema, described):
    assert set(schema.names) == set(described)


def test_every_array_of_latents_is_described():
    arrays = array_columns([16], captioned=True)
    assert {name.replace("16", "SIZE") for name in arrays} == set(columns.LATENTS_ARRAYS)


def test_every_environment_variable_that_is_described_is_used():
    sources = [path.read_text() for room in ("platform", "pipelines", "serve") for path in (ROOT / room).rglob("*.py")]
    # AWS's own clients read the first three, Python's tempfile the last.
    for name in set(environment.VARIABLES) - {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "TMPDIR"}:
        assert any(name in source for source in sources), name


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for names in python_api.PUBLIC.values() for name in names])
def test_public_names_can_be_imported(name):
    module, _, attribute = name.rpartition(".")
    assert getattr(importlib.import_module(module), attribute).__doc__


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_result_file_is_complete(path):
    result = json.loads(path.read_text())
    assert tuple(result) == FIELDS
    assert path.name.startswith(f"{result['benchmark']}-")
    assert result["figures"]
