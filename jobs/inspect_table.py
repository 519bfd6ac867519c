"""Inspect a table of clips or latents: schema, counts, statistics, failures, one complete row, and a contact sheet.

    python jobs/inspect_table.py runs/demo/latents
    python jobs/inspect_table.py s3://bucket/clips --where "motion > 0.5" --row 3 --sheet sheet.png

Reads a published table, and from its shards only the displayed rows.
"""

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from videogen import storage
from videogen.cli import parser, run_job
from videogen.data.datasets import open_table
from videogen.errors import UserError
from videogen.reporting.table.summary import read_row, render_row, render_summary, summarise


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the job's options."""
    arguments = parser(__doc__)
    arguments.add_argument("table", metavar="TABLE", help="folder of a published table")
    arguments.add_argument("--where", metavar="SQL", help="condition on the columns of the table")
    arguments.add_argument(
        "--row", type=int, metavar="N", help="number of the displayed row, from 0; default: the first"
    )
    arguments.add_argument("--sheet", metavar="FILE", help="write a contact sheet to this .png")
    arguments.add_argument(
        "--sheet-rows", type=int, default=24, metavar="N", help="rows of the contact sheet; default: 24"
    )
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job."""
    options = build_parser().parse_args(argv)
    if options.sheet is not None:
        if not options.sheet.lower().endswith(".png"):
            raise UserError(f"--sheet {options.sheet!r} is written as PNG: give a name that ends in .png.")
        storage.require_writable(storage.parent(options.sheet), "Folder of the sheet")
    table = open_table(options.table)
    console = Console(soft_wrap=False)
    summary = summarise(table, options.where)
    console.print(render_summary(summary))
    if options.row is not None or summary.num_selected:
        console.print(render_row(read_row(table, options.row or 0, options.where)))
    if options.sheet is not None:
        from videogen.reporting.contact_sheet import render_png

        storage.write_bytes(options.sheet, render_png(table, options.where, options.sheet_rows))
        console.print(options.sheet, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(run_job(main))
