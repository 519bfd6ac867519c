"""Reference of the command line: the options of every job, from its argument parser."""

import argparse
import contextlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from unittest import mock

from tools.reference.markdown import code, escape, page, table
from videogen import cli

_INTRODUCTION = """
Every job is a script in `jobs/` and a sub-command of `videogen`: `python jobs/ingest.py ...` and `videogen ingest ...`
do the same. A URI is a local path or `s3://bucket/key`. `--help` prints what this page says.
"""


def render(root: Path) -> str:
    """Return the page."""
    sections = [_section(name, parser) for name, parser in parsers(root).items()]
    return page("Jobs", _INTRODUCTION, *sections)


def parsers(root: Path) -> dict[str, argparse.ArgumentParser]:
    """Return the parser of every job, and of the service, by name."""
    jobs = {path.stem: _parser_of(_load(path), f"python jobs/{path.name}") for path in _scripts(root)}
    from serve import __main__ as service

    return jobs | {"serve": _parser_of(service, "python -m serve")}


def _scripts(root: Path) -> list[Path]:
    return [path for path in sorted((root / "jobs").glob("*.py")) if path.is_file()]


def _load(path: Path) -> ModuleType:
    """Import a job; jobs are scripts, not a package."""
    spec = importlib.util.spec_from_file_location(f"jobs.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _parser_of(module: ModuleType, prog: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = module.build_parser() if hasattr(module, "build_parser") else _captured(module)
    parser.prog = prog
    return parser


class _Captured(Exception):  # noqa: N818 - not an error: it carries a parser out of a job's `main`
    """Ends a job when it parses its options."""


def _captured(module: ModuleType) -> argparse.ArgumentParser:
    """Return the parser that a job without `build_parser` makes in its `main`."""
    found: list[argparse.ArgumentParser] = []

    def parse_args(parser: argparse.ArgumentParser, *_: object) -> None:
        found.append(parser)
        raise _Captured

    with mock.patch.object(cli._Parser, "parse_args", parse_args), contextlib.suppress(_Captured):
        module.main([])
    return found[0]


def _section(name: str, parser: argparse.ArgumentParser) -> str:
    description = (parser.description or "").strip()
    blocks = [f"## {name}", *_prose(description)]
    rows = list(_rows(parser))
    if rows:
        blocks.append(table(("option", "default", "meaning"), rows))
    return "\n\n".join(blocks)


def _prose(description: str) -> Iterator[str]:
    """Yield the paragraphs of a help text; indented ones are commands."""
    for block in re.split(r"\n\s*\n", description):
        lines = block.splitlines()
        if all(line.startswith("    ") for line in lines if line):
            yield "\n".join(["```bash", *(line[4:] for line in lines), "```"])
        else:
            yield " ".join(line.strip() for line in lines).replace("<", "&lt;")


def _rows(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str, str]]:
    for group in parser._action_groups:
        for action in group._group_actions:
            if isinstance(action, argparse._HelpAction) or action.help == argparse.SUPPRESS:
                continue
            yield _option(action), _default(action), escape(_help(parser, action))


def _option(action: argparse.Action) -> str:
    names = ", ".join(code(name) for name in action.option_strings) or code(action.metavar or action.dest.upper())
    if action.option_strings and action.nargs != 0:
        value = (
            "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.metavar or action.dest.upper()
        )
        names += f" {code(value)}"
    return names


def _default(action: argparse.Action) -> str:
    if action.required or not action.option_strings:
        return "required" if action.required else ""
    if action.default in (None, False, []) or action.default == argparse.SUPPRESS:
        return ""
    return code(action.default)


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    if not action.help:
        return ""
    values = {**vars(action), "prog": parser.prog}
    return action.help % values if "%" in action.help else action.help
