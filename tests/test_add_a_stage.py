"""The recipe "Add a stage" of CONTRIBUTING.md, carried out in a copy of the checkout; and the registry of stages."""

import importlib
import inspect
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STAGE = "colour_grade"
NEW_STAGE = ROOT / "tests" / "new_stage"
PACKAGE = "platform/videogen"


@pytest.mark.weight(90)
def test_add_a_stage_is_true(tmp_path, ray_cluster):
    """Follow the recipe in a copy of the checkout: the new stage then runs, trains, is saved and is served."""
    import ray

    checkout = _copied(tmp_path / "checkout")
    _add_stage(checkout, _steps("Add a stage"))
    folder = tmp_path / "used"
    folder.mkdir()
    environment = os.environ | {"PYTHONPATH": f"{checkout / 'platform'}{os.pathsep}{checkout}"}
    command = [sys.executable, NEW_STAGE / "use_it.py", folder, ray.get_runtime_context().gcs_address]
    used = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=600)
    assert used.returncode == 0, used.stderr
    assert used.stdout.endswith("done\n")


def _steps(title: str) -> list[str]:
    """Return the numbered steps of a section of CONTRIBUTING.md."""
    section = (ROOT / "CONTRIBUTING.md").read_text().partition(f"## {title}")[2].partition("\n## ")[0]
    steps = re.findall(r"^(\d+)\. (.+?)(?=^\d+\. |^\S|\Z)", section, re.MULTILINE | re.DOTALL)
    assert [int(number) for number, _ in steps] == list(range(1, len(steps) + 1))
    return [step for _, step in steps]


def _copied(checkout: Path) -> Path:
    """Return a copy of what is imported."""
    for name in ("platform", "pipelines", "serve"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    return checkout


def _add_stage(checkout: Path, steps: list[str]) -> None:
    """Do what each step says: one folder, one line in the registry, one block in each preset, and no other edit."""
    folder, registry, presets = steps
    assert f"`{PACKAGE}/stages/NAME/`" in folder
    assert set(re.findall(r"^ +- `(\w+\.py)`", folder, re.MULTILINE)) == {
        path.name for path in (NEW_STAGE / STAGE).glob("*.py")
    }
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(NEW_STAGE / STAGE, checkout / PACKAGE / "stages" / STAGE, ignore=ignored)

    path = f"{PACKAGE}/stages/registry.py"
    assert f"`{path}`" in registry
    text = (checkout / path).read_text()
    last = '    "decode",\n'
    assert text.count(last) == 1
    (checkout / path).write_text(text.replace(last, f'{last}    "{STAGE}",\n'))

    path = f"{PACKAGE}/config/presets"
    assert f"each preset in `{path}/`" in presets
    for preset in (checkout / path).iterdir():
        with preset.open("a") as file:
            file.write(f"{STAGE}:\n  training: {{steps: 2, batch_size: 2, learning_rate: 1.0e-2}}\n")


def test_every_stage_and_objective_is_registered_once(tiny):
    """A class that no definition names is never used, and a stage without values in a preset cannot be built."""
    from videogen.config import preset_names
    from videogen.stages import (
        STAGES,
        Objective,
        Stage,
        build_network,
        load_preset,
        objective_class,
        stage_class,
        stage_definition,
    )

    for preset in preset_names():
        cascade = load_preset(preset)
        assert all(cascade.names_of(kind) for kind in STAGES)
        for name in cascade.trainable_stages():
            assert cascade.training_of(name).steps
    for name in tiny.trainable_stages():
        assert sum(parameter.numel() for parameter in build_network(tiny, name).parameters()) > 0
    definitions = {kind: stage_definition(kind) for kind in STAGES}
    assert _concrete(Stage) == {stage_class(kind) for kind in STAGES if definitions[kind].class_name}
    assert _concrete(Objective) == {objective_class(kind) for kind in STAGES if definitions[kind].objective}


def _concrete(base: type) -> set[type]:
    """Return the classes of the stages' folders that can be instantiated, once all their modules are imported."""
    package = "videogen.stages"
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        importlib.import_module(module.name)
    found: set[type] = set()
    unseen: list[type] = [base]
    while unseen:
        subclasses: list[type] = type.__subclasses__(unseen.pop())
        children = [kind for kind in subclasses if kind.__module__.startswith(f"{package}.")]
        unseen += children
        found |= {kind for kind in children if not inspect.isabstract(kind)}
    return found
