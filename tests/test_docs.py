"""Documents: links resolve, named files and make targets exist, every job is named."""

import os
import re
import subprocess
import sys

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
        # A part in capitals is a placeholder: stages/NAME/.
        known = path.partition("NAME")[0]
        assert (ROOT / known).exists(), f"{_name(document)} names {path}"


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
