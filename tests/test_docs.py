"""What the documents say is kept true: links, named files, and the list of "Add a stage", which is followed."""

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

from tests._documents import DOCUMENTS, ROOT, anchors, links, prose

MAKEFILE = (ROOT / "Makefile").read_text()


def _name(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_links_resolve(document):
    for target in links(document):
        path, _, anchor = target.partition("#")
        linked = (document.parent / path).resolve() if path else document
        assert linked.exists(), f"{_name(document)} links to {target}"
        if anchor:
            assert anchor in anchors(linked), f"{_name(document)} links to {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_pages_of_the_site_link_to_pages_of_the_site(document):
    docs = ROOT / "docs"
    if docs in document.parents:
        for target in links(document):
            linked = (document.parent / target.partition("#")[0]).resolve()
            assert docs in linked.parents, f"{_name(document)} links to {target}, which the site does not have"


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if path.name != "CHANGELOG.md"], ids=_name)
def test_files_that_are_named_exist(document):
    rooms = "platform|pipelines|serve|jobs|benchmarks|tests|docs|tools|examples"
    for path in re.findall(rf"`((?:{rooms})/[\w./-]+)`", prose(document)):
        assert (ROOT / path).exists(), f"{_name(document)} names {path}"


@pytest.mark.process
def test_make_help_lists_every_target():
    command = ["make", "--no-print-directory", "help"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    assert {line.split()[1] for line in printed.splitlines()} == targets


@pytest.mark.process
@pytest.mark.slow
def test_the_site_builds_without_network_and_searches_without_server(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", tmp_path]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "https_proxy": "http://127.0.0.1:9"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    for page in tmp_path.rglob("*.html"):
        loaded = re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="(https?://[^"]+)"', page.read_text())
        assert not loaded, f"{page.name} loads {loaded}"
    assert "perceptual_hash" in (tmp_path / "search" / "search_index.js").read_text()


def test_continuous_integration_runs_the_readmes_test_command():
    script = ROOT / ".ci" / "run"
    commands = [line for line in script.read_text().splitlines() if line and not line.startswith(("#", "set", "cd"))]
    assert commands == ["exec make test"]
    assert script.stat().st_mode & 0o111


def test_the_readme_names_every_job():
    readme = (ROOT / "README.md").read_text()
    for job in (ROOT / "jobs").glob("[!_]*.py"):
        assert f"jobs/{job.name}" in readme


STAGE = "colour_grade"
NEW_STAGE = ROOT / "tests" / "new_stage"
PACKAGE = "platform/videogen"


def test_add_a_stage_is_true(tmp_path, ray_cluster):
    """Follow the list word by word in a copy of the checkout: a new stage then runs, trains, is saved and is served."""
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
    """Do what each step says, in the files that it names and in no other."""
    numbers, values, network, stage, objective, _ = steps

    def edit(step: str, path: str, *changes: tuple[str, str]) -> None:
        assert f"`{path}`" in step, f"step {step!r} does not name {path}"
        text = (checkout / path).read_text()
        for before, after in changes:
            assert text.count(before) == 1, f"{path} holds {before!r} {text.count(before)} times"
            text = text.replace(before, after)
        (checkout / path).write_text(text)

    def new_file(step: str, folder: str, source: str) -> None:
        assert f"`{folder}/`" in step, f"step {step!r} does not name {folder}"
        shutil.copy(NEW_STAGE / source, checkout / folder / f"{STAGE}.py")

    section = """class ColourGradeConfig(Section):
    \"""The colours of the finished frames.\"""

    strength: float = Field(default=1.0, ge=0, le=1)
    training: TrainingConfig


class DecodeConfig(Section):"""
    edit(numbers, f"{PACKAGE}/config/schema.py", ("class DecodeConfig(Section):", section))
    edit(
        numbers,
        f"{PACKAGE}/config/cascade.py",
        ("    BaseConfig,\n", "    BaseConfig,\n    ColourGradeConfig,\n"),
        ("    decode: DecodeConfig\n", f"    decode: DecodeConfig\n    {STAGE}: ColourGradeConfig\n"),
        ('"interpolate", "decode")', f'"interpolate", "decode", "{STAGE}")'),
    )
    presets = f"{PACKAGE}/config/presets"
    assert f"each preset in `{presets}/`" in values
    for preset in (checkout / presets).iterdir():
        with preset.open("a") as file:
            file.write(f"{STAGE}:\n  training: {{steps: 2, batch_size: 2, learning_rate: 1.0e-2}}\n")
    new_file(network, f"{PACKAGE}/models", "network.py")
    edit(
        network,
        f"{PACKAGE}/models/networks.py",
        ("from videogen.models.flow", f"from videogen.models.{STAGE} import ColourGrade\nfrom videogen.models.flow"),
        ("    section = ", f'    if stage == "{STAGE}":\n        return ColourGrade()\n    section = '),
    )
    new_file(stage, f"{PACKAGE}/stages", "stage.py")
    last = '    "decode": "videogen.stages.decode:DecodeStage",\n'
    ours = f'    "{STAGE}": "videogen.stages.{STAGE}:ColourGradeStage",\n'
    edit(stage, f"{PACKAGE}/stages/registry.py", (last, last + ours))
    new_file(objective, f"{PACKAGE}/training/objectives", "objective.py")
    last = '    "decode": Pairing("videogen.training.objectives.decode:DecodeObjective", "any"),\n'
    ours = f'    "{STAGE}": Pairing("videogen.training.objectives.{STAGE}:ColourGradeObjective", "any"),\n'
    edit(objective, f"{PACKAGE}/training/objectives/__init__.py", (last, last + ours))


def test_every_stage_and_objective_is_registered_once(tiny):
    """A class that nothing names would be dead, and one without a preset's values could not be built."""
    from videogen import config
    from videogen.models.networks import build_network
    from videogen.stages import STAGES, Stage, stage_class
    from videogen.training.objective import Objective
    from videogen.training.objectives import OBJECTIVES

    for preset in config.preset_names():
        cascade = config.load_preset(preset)
        for name in cascade.stage_names():
            assert cascade.stage_config(name) is not None
        assert {config.stage_kind(name) for name in cascade.trainable_stages()} <= set(OBJECTIVES)
    for name in tiny.trainable_stages():
        assert sum(parameter.numel() for parameter in build_network(tiny, name).parameters()) > 0
    assert {kind: stage_class(kind).kind for kind in STAGES} == {kind: kind for kind in STAGES}
    assert _concrete(Stage) == set(STAGES.values())
    assert _concrete(Objective) == {pairing.objective for pairing in OBJECTIVES.values()}


def _concrete(base: type) -> set[str]:
    """Return, as "module:class", what can be instantiated of `base`'s package once all its modules are imported."""
    package = "videogen.stages" if base.__name__ == "Stage" else "videogen.training.objectives"
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        importlib.import_module(module.name)
    found, unseen = set(), [base]
    while unseen:
        children = [kind for kind in unseen.pop().__subclasses__() if kind.__module__.startswith(f"{package}.")]
        unseen += children
        found |= {f"{kind.__module__}:{kind.__name__}" for kind in children if not inspect.isabstract(kind)}
    return found
