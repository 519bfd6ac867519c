"""Private names: what begins with an underscore is used inside its own package folder only, also by tests."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE_ROOTS = {"videogen": ROOT / "platform", "pipelines": ROOT, "serve": ROOT, "jobs": ROOT}
FOLDERS = ("platform/videogen", "pipelines", "serve", "jobs", "tests", "benchmarks", "tools", "examples")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_private_names_stay_in_their_package(folder):
    files = [path for path in FILES if path.is_relative_to(ROOT / folder)]
    assert [f"{path.relative_to(ROOT)}: {name}" for path in files for name in _private_uses(path)] == []


def test_the_check_sees_private_modules_names_and_attributes(tmp_path):
    source = (
        "import pipelines.runner._x\n"
        "from videogen.data.video._probe import probe\n"
        "from serve.graph import _call\n"
        "from pipelines.encode import plan\n"
        "plan._SAME_FPS\n"
        "monkeypatch.setattr(plan, '_SAME_FPS', 1)\n"
        "monkeypatch.setattr('serve.graph._call', None)\n"
    )
    path = tmp_path / "file.py"
    path.write_text(source)
    assert len(list(_private_uses(path))) == 6


def _private_uses(path: Path) -> Iterator[str]:
    """Yield the private modules, names and attributes of other packages that a file uses."""
    tree = ast.parse(path.read_text())
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                modules[alias.asname or alias.name] = alias.name
                yield from _outside(path, alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if _is_module(name):
                    modules[alias.asname or alias.name] = name
                yield from _outside(path, name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            yield from _outside(path, f"{modules[node.value.id]}.{node.attr}")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setattr":
            yield from _outside(path, _patched(node, modules))


def _patched(call: ast.Call, modules: dict[str, str]) -> str:
    """Return the dotted name that `monkeypatch.setattr(...)` replaces, "" if it is not a module's."""
    first, *rest = call.args
    if isinstance(first, ast.Constant) and isinstance(first.value, str):
        return first.value
    if isinstance(first, ast.Name) and first.id in modules and rest and isinstance(rest[0], ast.Constant):
        return f"{modules[first.id]}.{rest[0].value!r}".replace("'", "")
    return ""


def _outside(path: Path, name: str) -> Iterator[str]:
    """Yield `name` if a part of it is private to a package that the file does not belong to."""
    parts = name.split(".")
    if parts[0] not in SOURCE_ROOTS:
        return
    for index, part in enumerate(parts):
        if part.startswith("_") and not part.startswith("__"):
            owner = SOURCE_ROOTS[parts[0]].joinpath(*parts[:index])
            # The owner of a module's private name is the module's package.
            package = owner if owner.is_dir() else owner.parent
            if not path.is_relative_to(package):
                yield name
            return


def _is_module(name: str) -> bool:
    parts = name.split(".")
    if parts[0] not in SOURCE_ROOTS:
        return False
    path = SOURCE_ROOTS[parts[0]].joinpath(*parts)
    return path.is_dir() or path.with_suffix(".py").is_file()
