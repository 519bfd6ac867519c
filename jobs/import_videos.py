"""Unpack a data set of others (WebDataset tars, Hugging Face parquet) into videos that jobs/ingest.py reads.

    python jobs/import_videos.py --input s3://bucket/shards --output s3://bucket/videos
    python jobs/ingest.py --input s3://bucket/videos/videos.parquet --output s3://bucket/clips

Writes OUTPUT/videos, the manifest OUTPUT/videos.parquet with video and caption, and OUTPUT/errors.parquet with what
was left out and why. Of several captions of a video the first is taken. Videos that parquet only names stay where they
are: in its own folder, on S3, or, as an export of ours names them, unchanged at a local path. The same command again
continues an interrupted run and takes in shards that were added.
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
    arguments.add_argument("--video", metavar="NAME", help="column of videos, of parquet; default: video")
    arguments.add_argument(
        "--caption",
        metavar="NAME",
        help="column, or name in a sample's json, of the caption; default: .txt, caption, text or prompt",
    )
    arguments.add_argument(
        "--max-bytes", type=int, default=MAX_VIDEO_BYTES, metavar="N", help="larger videos are left out; default: 4 GiB"
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
