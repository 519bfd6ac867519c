"""Reference of the command line: the options of every job, from its argument parser."""

import argparse
import re
from collections.abc import Iterator
from importlib import import_module

from jobs.__main__ import sub_commands
from tools.reference.markdown import code, escape, page, table

_INTRODUCTION = """
Every job is a script in `jobs/` and a sub-command of `videogen`: `python jobs/ingest.py ...` and `videogen ingest ...`
do the same. A URI is a local path or `s3://bucket/key`. `--help` prints what this page says.
"""


def render() -> str:
    """Return the page."""
    sections = [_section(name, parser) for name, parser in parsers().items()]
    return page("Jobs", _INTRODUCTION, *sections)


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of every job, and of the service, by name."""
    found = {}
    for command, module in sub_commands().items():
        name = "serve" if command == "serve" else module.removeprefix("jobs.")
        found[name] = import_module(module).build_parser()
        found[name].prog = "python -m serve" if command == "serve" else f"python jobs/{name}.py"
    return found


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
