"""Export a table of clips or latents as WebDataset tars, or as Hugging Face parquet with a dataset card.

    python jobs/export_table.py --table runs/latents --output runs/tars --format webdataset
    python jobs/export_table.py --table s3://bucket/clips --output s3://bucket/hub --format huggingface

Clips dropped by the table's policy are exported only with --with-dropped. --with-videos adds each source video once, in
OUTPUT/videos/*.tar or the config "videos"; the column `video_key` of a clip names its video. An earlier export in
OUTPUT is replaced; a folder with other files is refused.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

from pipelines.cluster.progress import Progress
from pipelines.runner.preflight import require_output
from videogen.cli import parser, run_job
from videogen.data.datasets import open_table
from videogen.data.interchange import ARRAY_FORMS, ExportOptions, export_huggingface, export_webdataset
from videogen.data.tables import check_expression
from videogen.errors import UserError

_MOST_MB = 1 << 20
_FORMATS: dict[str, Callable[..., Sequence[object]]] = {
    "webdataset": export_webdataset,
    "huggingface": export_huggingface,
}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the job's options."""
    arguments = parser(__doc__)
    arguments.add_argument("--table", required=True, metavar="URI", help="folder of a published table")
    arguments.add_argument("--output", required=True, metavar="URI", help="folder to write")
    arguments.add_argument("--format", required=True, choices=_FORMATS, help="output format")
    arguments.add_argument("--where", metavar="SQL", help="condition on the columns of the table")
    arguments.add_argument("--with-dropped", action="store_true", help="include clips dropped by the policy")
    arguments.add_argument("--with-videos", action="store_true", help="also export each complete source video once")
    arguments.add_argument("--arrays", choices=ARRAY_FORMS, help="array format in tars; default: npy")
    arguments.add_argument(
        "--shard-mb", type=float, default=1024, metavar="N", help="maximum size of a file in MB; default: 1024"
    )
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job."""
    options = build_parser().parse_args(argv)
    if not 0 < options.shard_mb <= _MOST_MB:
        raise UserError(f"--shard-mb is {options.shard_mb:g}, but it is a size above 0, up to {_MOST_MB} MB.")
    if options.arrays and options.format != "webdataset":
        raise UserError(f"--arrays {options.arrays} is for --format webdataset: parquet has columns of numbers.")
    require_output(options.output)
    table = open_table(options.table)
    if options.where is not None:
        check_expression(options.where, table.index_schema, "--where")
    export = ExportOptions(
        where=options.where,
        with_dropped=options.with_dropped,
        with_videos=options.with_videos,
        arrays=options.arrays or ARRAY_FORMS[0],
        shard_bytes=int(options.shard_mb * 2**20),
    )
    with Progress() as progress, progress.task("export", total=sum(s.rows for s in table.shards), unit="rows") as task:
        files = _FORMATS[options.format](table, options.output, export, task.advance)
    print(f"{options.output}: {len(files)} files")


if __name__ == "__main__":
    sys.exit(run_job(main))
