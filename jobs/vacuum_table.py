"""Remove files of tables that no reader needs any more: what earlier manifests named, and what killed runs have left.

    python jobs/vacuum_table.py s3://bucket/clips s3://bucket/latents --dry-run
    python jobs/vacuum_table.py s3://bucket/clips --retain-hours 24

A table that is brought up to date keeps what its earlier manifests named, for readers that have opened one of them.
What was replaced, or left behind, more than --retain-hours ago is removed, and a training or an export that runs longer
than that on an earlier state of the table loses its files. A table that a job is writing is refused. With it go parts
of other options than the table's (another decoder, another autoencoder), and rows of videos that are no longer part of
the input: should they come back, they are made again.
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
    arguments.add_argument("tables", nargs="+", metavar="TABLE", help="folder of a finished table")
    arguments.add_argument(
        "--retain-hours", type=float, default=168.0, metavar="H", help="keep what was in use since; default: a week"
    )
    arguments.add_argument("--dry-run", action="store_true", help="only say what would be removed")
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
