"""What the documents say is kept true: links, commands, options, and the list of "Add a stage"."""

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_resolve(document):
    text = document.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://", "#")):
            assert (document.parent / target.partition("#")[0]).exists(), f"{document.name} links to {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_make_commands_exist(document):
    called = re.findall(r"(?:^|`)make(?: [A-Z_]+=\S+)* ([a-z]+)", document.read_text(), re.MULTILINE)
    assert set(called) <= TARGETS


def test_make_help_lists_every_target():
    command = ["make", "--no-print-directory", "help"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split()[1] for line in printed.splitlines()} == TARGETS


def test_continuous_integration_runs_the_readmes_test_command():
    script = ROOT / ".ci" / "run"
    commands = [line for line in script.read_text().splitlines() if line and not line.startswith(("#", "set", "cd"))]
    assert commands == ["exec make test"]
    assert script.stat().st_mode & 0o111


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(document):
    named = re.findall(r"`((?:platform|pipelines|serve|jobs|benchmarks|tests|docs)/[\w./]+)`", document.read_text())
    for path in named:
        assert (ROOT / path).exists(), f"{document.name} names {path}"


def test_the_readme_names_every_job_and_only_real_options():
    rows = re.findall(r"^\| `python (jobs/\w+\.py)([^`]*)`", README, re.MULTILINE)
    assert {job for job, _ in rows} == {f"jobs/{path.name}" for path in (ROOT / "jobs").glob("*.py")}
    for job, options in rows:
        printed = subprocess.run([sys.executable, job, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
        for option in re.findall(r"--[a-z-]+", options):
            assert re.search(rf"{option}\b", printed.stdout), f"{job} has no option {option}"


def test_add_a_stage_is_true(tiny):
    """Each numbered step names files and functions; they exist and do what the step says."""
    from videogen import config, models, stages
    from videogen.models.networks import build_network
    from videogen.stages import STAGES, Stage, stage_class
    from videogen.training.objective import Objective
    from videogen.training.objectives import build_objective

    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## Add a stage")[2].partition("\n## ")[0]
    steps = re.findall(r"^(\d+)\. (.+?)(?=^\d+\. |^\S|\Z)", section, re.MULTILINE | re.DOTALL)
    assert [int(number) for number, _ in steps] == list(range(1, len(steps) + 1))

    # 1, 2: every stage has a section in every preset, and a place in the order.
    for preset in config.preset_names():
        cascade = config.load_preset(preset)
        for name in cascade.stage_names():
            assert cascade.stage_config(name) is not None
    # 3: every stage that is trained has its network.
    for name in tiny.trainable_stages():
        assert sum(parameter.numel() for parameter in build_network(tiny, name).parameters()) > 0
    assert inspect.getsourcefile(build_network) == str(Path(models.__file__).with_name("networks.py"))
    # 4: every stage is registered, once, and says what it consumes and produces.
    classes = {stage_class(kind) for kind in STAGES}
    assert _concrete(Stage) == classes
    assert {kind.kind for kind in classes} == set(STAGES)
    for name in tiny.stage_names():
        kind = stage_class(name)
        assert kind in classes
        assert kind.consumes
        assert kind.produces
    assert {Path(inspect.getsourcefile(kind)).parent for kind in classes} == {Path(stages.__file__).parent}
    assert f"`{Path(inspect.getsourcefile(stage_class)).relative_to(ROOT)}`" in steps[3][1]
    # 5: every trained stage has an objective, paired in one place.
    pairing = inspect.getsource(build_objective)
    for kind in _concrete(Objective):
        assert kind.__name__ in pairing, f"{kind.__name__} is in no pair"


def _concrete(base: type) -> set[type]:
    """Return the classes of `base`'s package that can be instantiated, once all its modules are imported."""
    package = "videogen.stages" if base.__name__ == "Stage" else "videogen.training.objectives"
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        importlib.import_module(module.name)
    found, unseen = set(), [base]
    while unseen:
        children = [kind for kind in unseen.pop().__subclasses__() if kind.__module__.startswith(f"{package}.")]
        unseen += children
        found |= {kind for kind in children if not inspect.isabstract(kind)}
    return found
