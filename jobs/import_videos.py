"""Import a data set (WebDataset tars, Hugging Face parquet) as videos for jobs/ingest.py.

    python jobs/import_videos.py --input s3://bucket/shards --output s3://bucket/videos
    python jobs/ingest.py --input s3://bucket/videos/videos.parquet --output s3://bucket/clips

Writes OUTPUT/videos, the manifest OUTPUT/videos.parquet with the columns `video` and `caption`, and
OUTPUT/errors.parquet with every skipped sample and its reason. Of several captions of a video the first is used. Videos
that parquet only references are not copied: they may lie in the folder of the parquet files, on S3, or, for an export
of jobs/export_table.py, at an unchanged local path. The same command continues an interrupted run and imports new
shards.
"""

import argparse
import sys
from collections.abc import Sequence

from pipelines.cluster.progress import Progress
from pipelines.runner.preflight import require_output
from videogen import storage
from videogen.cli import parser, run_job
from videogen.data.interchange import MAX_VIDEO_BYTES, find_shards, import_videos


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the job's options."""
    arguments = parser(__doc__)
    arguments.add_argument("--input", required=True, metavar="URI", help="a shard, or a folder of shards")
    arguments.add_argument("--output", required=True, metavar="URI", help="folder of the videos and their manifest")
    arguments.add_argument("--video", metavar="NAME", help="column of videos in parquet; default: video")
    arguments.add_argument(
        "--caption",
        metavar="NAME",
        help="column, or key in a sample's json, of the caption; default: .txt, caption, text or prompt",
    )
    arguments.add_argument(
        "--max-bytes", type=int, default=MAX_VIDEO_BYTES, metavar="N", help="skip larger videos; default: 4 GiB"
    )
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job."""
    options = build_parser().parse_args(argv)
    require_output(options.output)
    shards = find_shards(options.input)
    root = storage.absolute(options.input)
    root = root if storage.is_dir(root) else storage.parent(root)
    with Progress() as progress, progress.task("import", total=len(shards), unit="shards") as task:
        result = import_videos(
            shards, options.output, root, options.video, options.caption, options.max_bytes, task.advance
        )
    told = [f"{result.num_videos} videos", f"{result.num_captions} with a caption", f"{result.num_errors} left out"]
    if result.num_several:
        told.append(f"{result.num_several} with the first of several captions")
    if result.num_empty_shards:
        told.append(f"{result.num_empty_shards} of {len(shards)} shards without a video")
    print(f"{result.manifest}: {', '.join(told)}")


if __name__ == "__main__":
    sys.exit(run_job(main))
