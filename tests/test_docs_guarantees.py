"""Guarantees page: every test that it names exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs/explanation/guarantees.md").read_text())


def test_the_page_names_tests():
    assert len(NAMED) > 40


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED}))
def test_named_tests_exist(file):
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = {node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, functions)}
    assert {name for path, name in NAMED if path == file} <= found
