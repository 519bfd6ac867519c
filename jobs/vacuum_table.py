"""Vacuum tables: remove files that no reader needs, of earlier manifests and of killed runs.

    python jobs/vacuum_table.py s3://bucket/clips s3://bucket/latents --dry-run
    python jobs/vacuum_table.py s3://bucket/clips --retain-hours 24

An updated table keeps the files of its earlier manifests for readers that have opened them. Files that were replaced or
left behind more than --retain-hours ago are removed; a training or an export that reads an earlier version for longer
than that loses its files. A table that a job is writing is refused. Parts made with other options (another decoder,
another autoencoder) and rows of videos that left the input are removed too; if such videos return, they are processed
again.
"""

import argparse
import math
import sys
from collections.abc import Sequence

from videogen.cli import parser, run_job
from videogen.data.tables import vacuum_table
from videogen.errors import UserError


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the job's options."""
    arguments = parser(__doc__)
    arguments.add_argument("tables", nargs="+", metavar="TABLE", help="folder of a published table")
    arguments.add_argument(
        "--retain-hours",
        type=float,
        default=168.0,
        metavar="H",
        help="keep files in use during the last H hours; default: 168 (a week)",
    )
    arguments.add_argument("--dry-run", action="store_true", help="only print what would be removed")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job."""
    options = build_parser().parse_args(argv)
    if not 0 <= options.retain_hours < math.inf:
        raise UserError(f"--retain-hours is {options.retain_hours}, but it is a number of hours, 0 or more.")
    for table in options.tables:
        found = vacuum_table(table, 3600 * options.retain_hours, options.dry_run)
        for file in found:
            print(file.uri)
        said = "would be removed" if options.dry_run else "removed"
        print(f"{table}: {len(found)} files, {sum(file.num_bytes for file in found) / 1e6:.1f} MB {said}")


if __name__ == "__main__":
    sys.exit(run_job(main))
