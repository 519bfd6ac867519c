"""Duration of the test commands.

    python benchmarks/suite.py --save

Runs `make test-fast` and `make test` once each, in an environment that is already installed.
"""

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.result_files import add_save_option, report
from videogen.cli import parser, run_job

_TARGETS = ("test-fast", "test")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the commands one after the other."""
    options = build_parser().parse_args(argv)
    report("tests", {"commands": [_timed(target) for target in options.targets]}, options)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    arguments = parser(__doc__)
    arguments.add_argument("--targets", nargs="+", default=_TARGETS, choices=_TARGETS, help="default: both")
    add_save_option(arguments)
    return arguments


def _timed(target: str) -> dict[str, Any]:
    started = time.perf_counter()
    root = Path(__file__).resolve().parents[1]
    ran = subprocess.run(["make", target], cwd=root, check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    last_line = ran.stdout.strip().rpartition("\n")[2]
    passed = re.search(r"(\d+) passed", last_line)
    row = {"command": f"make {target}", "seconds": round(seconds), "exit_status": ran.returncode}
    return {**row, "passed": int(passed[1]) if passed else None}


if __name__ == "__main__":
    sys.exit(run_job(main))
