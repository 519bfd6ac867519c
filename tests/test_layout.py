"""Guards of the house: where things live, who may import whom, and what must stay light."""

import ast
import re
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
STDLIB_PLATFORM = str(Path(sysconfig.get_paths()["stdlib"]) / "platform.py")
PACKAGES = {"videogen": ROOT / "platform" / "videogen", "pipelines": ROOT / "pipelines", "serve": ROOT / "serve"}
JOBS = sorted((ROOT / "jobs").glob("[!_]*.py"))
SOURCES = sorted(path for folder in PACKAGES.values() for path in folder.rglob("*.py"))

HEAVY = ("torch", "diffusers", "transformers", "deepspeed", "ray", "decord", "av", "pandas", "fastapi")
LIGHT = (
    "videogen",
    "videogen.errors",
    "videogen.cli",
    "videogen.storage",
    "videogen.config",
    "videogen.stages",
    "pipelines",
    "serve",
)


# --- platform/ is a source root, and Python's own `platform` is what everyone imports ----------------------------


def test_platform_is_a_folder_not_a_package():
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert [item.name for item in (ROOT / "platform").glob("[!_.]*")] == ["videogen"]


@pytest.mark.process
@pytest.mark.parametrize("folder", [".", "jobs", "platform"])
def test_platform_is_pythons_own_from(folder):
    code = "import sys; sys.path.insert(0, ''); import platform; platform.system(); print(platform.__file__)"
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / folder, capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == STDLIB_PLATFORM


def test_platform_is_pythons_own_in_a_ray_worker(ray_cluster):
    import ray

    @ray.remote
    def look() -> tuple[str, str]:
        import platform

        import videogen

        return platform.__file__, videogen.__file__

    theirs, ours = ray.get(look.remote())
    assert theirs == STDLIB_PLATFORM
    assert Path(ours) == PACKAGES["videogen"] / "__init__.py"


def test_no_job_or_top_level_module_is_named_like_a_package():
    # A script's folder comes first on sys.path, so a jobs/serve.py would hide the package. A folder would not.
    taken = set(PACKAGES) | set(sys.stdlib_module_names)
    modules = [*JOBS, *ROOT.glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    assert not taken & {path.stem for path in modules if path.is_file()}


# --- imports run one way -----------------------------------------------------------------------------------------


@pytest.mark.process
def test_imports_run_one_way():
    # The rules stand in pyproject.toml, [tool.importlinter]; `make lint` prints the same.
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_import_rules_name_every_room_of_the_library():
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(rule["layers"] for rule in rules if rule.get("containers") == ["videogen"])
    named = {room.strip() for layer in layers for room in layer.split("|")}
    inside = [path for path in PACKAGES["videogen"].iterdir() if not path.name.startswith(("_", "."))]
    rooms = {path.stem for path in inside if path.is_dir() or path.suffix == ".py"}
    assert named == rooms


def test_jobs_are_imported_by_nobody():
    for path in [*SOURCES, *JOBS]:
        assert not {"jobs", "benchmarks", "tests"} & {module.split(".")[0] for module in _imports(path)}, path


def test_the_table_engine_knows_no_kind_of_table():
    # What a row means is defined by those who write and read it, in a TableKind and its manifest.
    words = re.compile(r"fps|encod\w*|decod\w*|videos?|caption\w*|latents?|clips?|frames?", re.IGNORECASE)
    for path in (PACKAGES["videogen"] / "data" / "tables").rglob("*.py"):
        text = re.sub(r"\.(en|de)code\(", "(", path.read_text())
        assert not {word for word in re.findall(r"[a-z]+", text, re.IGNORECASE) if words.fullmatch(word)}, path


def test_the_table_engine_is_used_through_its_package_alone():
    engine = PACKAGES["videogen"] / "data" / "tables"
    for path in [*SOURCES, *JOBS]:
        if not path.is_relative_to(engine):
            assert not [module for module in _imports(path) if module.startswith("videogen.data.tables.")], path


# --- light modules stay light, and every job answers at once -----------------------------------------------------


@pytest.mark.process
@pytest.mark.parametrize("module", LIGHT)
def test_import_brings_nothing_heavy(module):
    code = f"import sys, {module}; print(*sorted({set(HEAVY)} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == ""


@pytest.mark.process
@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.name)
def test_job_has_help_that_brings_nothing_heavy(job):
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{str(job)!r}, '--help']\n"
        "try:\n"
        f"    runpy.run_path({str(job)!r}, run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    assert not stop.code, stop.code\n"
        f"print('HEAVY', *sorted({set(HEAVY)} & set(sys.modules)))\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    assert printed.stdout.startswith("usage:")
    assert printed.stdout.splitlines()[-1].split() == ["HEAVY"]


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.name)
def test_job_is_thin_and_says_how_it_is_run(job):
    source = job.read_text()
    assert f"python jobs/{job.name}" in (ast.get_docstring(ast.parse(source)) or ""), "the docstring shows the command"
    assert len(source.splitlines()) < 200, "what a job does belongs into pipelines/ or videogen"


# --- one list of checks ------------------------------------------------------------------------------------------


def test_pre_commit_runs_exactly_the_commands_of_make_lint():
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    commands = [line.strip().replace("$(BIN)/", ".venv/bin/") for line in recipe[1].splitlines()]
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert [hook["entry"] for hook in hooks] == commands
    assert not any(hook["pass_filenames"] for hook in hooks), "all of them check the whole tree"


# --- what is installed is what is declared -----------------------------------------------------------------------


def test_every_third_party_import_is_a_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = project["optional-dependencies"]
    declared = {_name(entry) for entry in [*project["dependencies"], *groups["demo"]]}
    providers = metadata.packages_distributions()
    for path in [*SOURCES, *JOBS, *(ROOT / "benchmarks").glob("*.py")]:
        for module in _imports(path):
            top = module.split(".")[0]
            if top in sys.stdlib_module_names or top in {*PACKAGES, "benchmarks", "tools"}:
                continue
            names = {_name(name) for name in providers.get(top, [])}
            assert names & declared, f"{path.relative_to(ROOT)} imports {top}, which pyproject.toml does not declare"


def test_every_declared_dependency_is_constrained():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    constrained = {_name(line) for line in lines if line and not line.startswith("#")}
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    assert {_name(entry) for group in groups for entry in group} <= constrained


def _name(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!;\s]", requirement, maxsplit=1)[0]).lower()


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def test_the_installed_version_is_the_package_version():
    import videogen

    assert metadata.version("videogen-platform") == videogen.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" in project["dynamic"], "the version stands in platform/videogen/__init__.py alone"
