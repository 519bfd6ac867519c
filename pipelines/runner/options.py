"""Command-line options of jobs that write tables: decoder and handling of failures."""

import argparse

from pipelines.runner.run import RunOptions
from videogen.cli import suggest
from videogen.errors import UserError

_DECODERS = ("auto", "decord", "pyav", "torchcodec")


def add_run_options(arguments: argparse.ArgumentParser) -> None:
    """Add the options in a group of their own."""
    run = arguments.add_argument_group("reading and failures")
    run.add_argument("--decoder", default="auto", metavar="NAME", help=", ".join(_DECODERS))
    run.add_argument("--retry-failed", action="store_true", help="try again what failed before")
    run.add_argument("--replace", action="store_true", help="replace a table that was made with other settings")
    run.add_argument("--max-failure-rate", type=float, default=0.5, metavar="SHARE", help="stop above this share")
    run.add_argument("--video-limit", type=float, default=60.0, metavar="S", help="seconds that a small video may take")


def run_options(options: argparse.Namespace) -> RunOptions:
    """Return the parsed options.

    Raises:
        UserError: a value is out of range, or there is no such decoder.
    """
    if options.decoder not in _DECODERS:
        hint = suggest(options.decoder, _DECODERS)
        raise UserError(f"There is no decoder {options.decoder!r}.{hint} Choose from {', '.join(_DECODERS)}.")
    return RunOptions(
        options.retry_failed, options.max_failure_rate, replace=options.replace, limit_s=options.video_limit
    )
