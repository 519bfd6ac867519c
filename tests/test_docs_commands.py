"""Command lines in the documents: each is parsed by the parser of the command that it calls, without being run."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from jobs.__main__ import sub_commands
from tests._documents import DOCUMENTS, ROOT, fences, prose
from tools.reference import environment, jobs

PARSERS = jobs.parsers()
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
SHELL = ("", "bash", "sh", "console")
CALLS = ("python jobs/", "python -m ", "python benchmarks/", "make ", "videogen ", "ray job submit ")
ANY = "..."
"""Stands for arguments in a command that is only named."""


def commands(text: str) -> list[str]:
    """Return the commands of a block of shell lines that are ours: continuations joined, one of several in each."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    parts = [part.strip() for line in lines for part in line.removeprefix("$ ").split("&&")]
    return [part for part in parts if part.startswith(CALLS)]


def check(command: str) -> None:
    """Raise if a command line cannot be what it seems to be."""
    words = shlex.split(command, comments=True)
    if words[:3] == ["ray", "job", "submit"]:
        assert "--" in words, "ray job submit needs -- before the command"
        inner = words[words.index("--") + 1 :]
        assert inner[:1] == ["python"]
        check(shlex.join(inner))
    elif words[0] == "make":
        _check_make(words[1:])
    elif words[0] == "videogen":
        _check_verb(words[1:])
    elif words[1] == "-m":
        _check_module(words[2:])
    elif words[1].startswith("jobs/"):
        assert (ROOT / words[1]).is_file(), words[1]
        _parse(Path(words[1]).stem, words[2:])
    else:
        assert (ROOT / words[1]).is_file(), words[1]
        if ANY not in words:
            import_module(f"benchmarks.{Path(words[1]).stem}").build_parser().parse_args(words[2:])


def _check_make(words: list[str]) -> None:
    for word in words:
        name, assigned, _ = word.partition("=")
        assert name in (environment.MAKE_VARIABLES if assigned else TARGETS), f"make has no {name}"


def _check_verb(words: list[str]) -> None:
    if words and words[0] != ANY and not words[0].startswith("-"):
        verbs = sub_commands()
        assert words[0] in {*verbs, "completion"}, f"videogen has no sub-command {words[0]}"
        if words[0] in verbs:
            _parse("serve" if words[0] == "serve" else words[0].replace("-", "_"), words[1:])


def _check_module(words: list[str]) -> None:
    if words[0] == "serve":
        _parse("serve", words[1:])
    elif words[0] not in ("pytest", "venv", "http.server", "pip"):
        place = ROOT / words[0].replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), words[0]


def _parse(job: str, words: list[str]) -> None:
    assert job in PARSERS, job
    if ANY not in words:
        PARSERS[job].parse_args(words)


BLOCKS = [fence for path in DOCUMENTS for fence in fences(path) if fence.language in SHELL and commands(fence.text)]


def test_there_are_commands_to_check():
    assert sum(len(commands(block.text)) for block in BLOCKS) > 50


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_commands_of_a_block_parse(block):
    for command in commands(block.text):
        try:
            check(command)
        except SystemExit:
            pytest.fail(f"{block.name}: {command!r} does not parse")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_within_sentences_name_what_exists(document):
    for span in re.findall(r"`([^`\n]+)`", prose(document)):
        if not span.startswith(CALLS) or span.startswith("ray "):
            continue
        # A sentence may leave out what a command requires, so its options are looked up one by one.
        check(span if span.startswith("make ") else f"{span} {ANY}")
        if job := re.match(r"python jobs/(\w+)\.py", span):
            known = PARSERS[job[1]]._option_string_actions
            assert set(re.findall(r"--[a-z-]+", span)) <= set(known), f"{document.name}: {span}"


@pytest.mark.parametrize(
    "command",
    [
        "python jobs/ingest.py --inptu a --output b",
        "python jobs/nothing.py",
        "python benchmarks/listing.py --nothing",
        "make nothing",
        "make demo THING=1",
        "videogen nothing",
        "ray job submit python jobs/demo.py",
        "ray job submit -- python jobs/demo.py --nothing",
        "python -m serve",
        "python -m nothing",
    ],
)
def test_a_wrong_command_is_noticed(command):
    with pytest.raises((AssertionError, SystemExit)):
        check(command)
