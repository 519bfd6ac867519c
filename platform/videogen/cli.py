"""Command line of all jobs: argument parser, shared options, exit statuses, spelling suggestions."""

import argparse
import difflib
import errno
import gc
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from videogen.errors import UserError

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """Parser that refuses `--option=--`, which Python 3.11 parses as an empty list."""

    # Only one of the base class's overloads.
    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        for one in sys.argv[1:] if args is None else args:
            if one.startswith("--") and one.endswith("=--"):
                self.error(f"argument {one.removesuffix('=--')}: '--' is no value: give another")
        return super().parse_args(args, namespace)


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help text is the job's module docstring, verbatim."""
    return _Parser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_preset_options(arguments: argparse.ArgumentParser, default: str | None = "tiny") -> None:
    """Add `--preset` and `--set`, which together choose a `CascadeConfig`."""
    arguments.add_argument("--preset", default=default, metavar="NAME", help="tiny, small, paper or a YAML file")
    add_set_option(arguments)


def add_set_option(
    arguments: argparse.ArgumentParser,
    help_text: str = "override a preset value, e.g. --set base.training.steps=500",
) -> None:
    """Add the repeatable `--set a.b=c`; `help_text` is its help text."""
    arguments.add_argument(
        "--set",
        dest="overrides",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help=f"{help_text} (repeatable)",
    )


def suggest(word: str, options: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the option closest to `word`, or an empty string."""
    close = difflib.get_close_matches(word, list(options), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def run_job(main: Callable[[Sequence[str] | None], None]) -> int:
    """Run a job's `main` and return its exit status: 0, 1 failed, 2 bad input, 130 interrupted."""
    try:
        main(None)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" ({error.filename})" if error.filename else ""
        cure = "free some, or set TMPDIR to a larger disk; then run the same command again to continue"
        print(f"error: No space is left{where}: {cure}.", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        return EXIT_INTERRUPTED
    finally:
        gc.freeze()  # skips a final collection over all of torch's objects, which takes a second
    return 0
