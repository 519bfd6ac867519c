"""The `videogen` command: every job and the service as a sub-command.

videogen ingest --input s3://bucket/videos --output s3://bucket/clips    # the same as python jobs/ingest.py ...
videogen train-cascade --help
videogen serve --model runs/demo/model
videogen completion bash > ~/.local/share/bash-completion/completions/videogen
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules

import jobs
from videogen import __version__
from videogen.cli import EXIT_BAD_INPUT, run_job, suggest

_SHELLS = ("bash", "zsh", "tcsh")


def main() -> int:
    """Run the sub-command that the command line names; return its exit status."""
    return run(sys.argv[1:])


def run(argv: Sequence[str]) -> int:
    """Run one sub-command, for example `["ingest", "--input", ...]`; return its exit status."""
    modules = sub_commands()
    if not argv or argv[0] in ("-h", "--help"):
        print(_help(modules))
        return 0
    if argv[0] == "--version":
        print(f"videogen {__version__}")
        return 0
    verb, words = argv[0].replace("_", "-"), list(argv[1:])
    if verb == "completion":
        return _completion(words)
    if verb not in modules:
        print(
            f"error: there is no command {argv[0]!r}.{suggest(verb, modules)} `videogen --help` lists them.",
            file=sys.stderr,
        )
        return EXIT_BAD_INPUT
    sys.argv = [f"videogen {verb}", *words]  # argparse shows it as the program's name
    return run_job(import_module(modules[verb]).main)


def sub_commands() -> dict[str, str]:
    """Return the module of every sub-command by its name."""
    names = sorted(module.name for module in iter_modules(jobs.__path__) if not module.name.startswith("_"))
    return {name.replace("_", "-"): f"jobs.{name}" for name in names} | {"serve": "serve.__main__"}


def build_parser() -> argparse.ArgumentParser:
    """Return one parser with the options of all sub-commands, for completion and the reference."""
    parser = argparse.ArgumentParser(prog="videogen")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command")
    for name, module in sub_commands().items():
        job = import_module(module)
        commands.add_parser(name, help=_summary(job.__doc__), parents=[job.build_parser()], add_help=False)
    commands.add_parser("completion", help="Print a completion script.").add_argument("shell", choices=_SHELLS)
    return parser


def _completion(words: Sequence[str]) -> int:
    if len(words) != 1 or words[0] not in _SHELLS:
        print(f"usage: videogen completion {{{','.join(_SHELLS)}}}", file=sys.stderr)
        return EXIT_BAD_INPUT
    import shtab

    print(shtab.complete(build_parser(), shell=words[0]))
    return 0


def _help(modules: dict[str, str]) -> str:
    rows = [f"  {name:16} {_summary(import_module(module).__doc__)}" for name, module in modules.items()]
    rows.append(f"  {'completion':16} Print a completion script for {', '.join(_SHELLS)}.")
    return "\n".join(
        [
            "usage: videogen COMMAND [OPTIONS]",
            "",
            *rows,
            "",
            "`videogen COMMAND --help` shows the options of a command.",
        ]
    )


def _summary(doc: str | None) -> str:
    """Return the first sentence of a docstring."""
    return " ".join((doc or "").partition("\n\n")[0].split())


if __name__ == "__main__":
    sys.exit(main())
