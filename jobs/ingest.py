r"""Ingest raw videos into a clips table: probe, cut at shots, score, caption and deduplicate.

    python jobs/ingest.py --input s3://bucket/videos --output s3://bucket/clips --preset tiny \
        --keep "motion >= 0.05" --keep "black_bars < 0.05" --keep "duplicate_of = ''"

INPUT is a folder, an S3 prefix, a video, or a manifest (parquet, csv, jsonl) with a column `video` and optionally
`caption`. All scores of all clips are stored; the rules of --keep only mark the kept clips, so changing them decodes
nothing again. The same command continues an interrupted run and processes only new and replaced videos. Unreadable
videos are listed in OUTPUT/errors.parquet, videos without a clip in OUTPUT/filtered.parquet, both with the reason.

    python jobs/inspect_table.py s3://bucket/clips
    python jobs/encode_latents.py --input s3://bucket/clips --output s3://bucket/latents --preset tiny
"""

import argparse
import sys
from collections.abc import Sequence

from pipelines.ingest.pipeline import IngestOptions, ingest, score_names
from pipelines.runner.options import add_run_options, run_options
from pipelines.runner.preflight import require_output
from videogen.cli import add_preset_options, parser, run_job
from videogen.data.curation import Policy
from videogen.data.curation.duplicates import LARGEST_DISTANCE, DedupThresholds
from videogen.data.datasets.clips_schema import IngestSpec
from videogen.errors import UserError
from videogen.stages import load_preset


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the job's options."""
    arguments = parser(__doc__)
    arguments.add_argument("--input", required=True, metavar="URI", help="folder, S3 prefix, video or manifest")
    arguments.add_argument("--output", required=True, metavar="URI", help="folder of the clips table")
    arguments.add_argument(
        "--captions", metavar="URI", help="table with `video` and `caption`; default: INPUT/captions.*, if any"
    )
    add_preset_options(arguments)
    clips = arguments.add_argument_group("clips (defaults: length and frame rate of the preset)")
    clips.add_argument("--num-frames", type=int, metavar="N", help="frames of a clip")
    clips.add_argument("--fps", type=float, metavar="F", help="target frames per second")
    clips.add_argument(
        "--stride", type=int, metavar="N", help="frames between the starts of clips; default: no overlap"
    )
    clips.add_argument("--no-shots", action="store_true", help="do not detect shots")
    found = arguments.add_argument_group("analysis")
    found.add_argument(
        "--headers-only", action="store_true", help="plan from headers only: no shots, scores or thumbnails"
    )
    found.add_argument("--scores", default="all", metavar="A,B", help="scores to compute, or all, or none")
    found.add_argument("--embedding", metavar="URI", help="folder of a CLIP model; adds embeddings")
    found.add_argument(
        "--aesthetic", metavar="URI", help="folder of an aesthetic head for that model; adds `aesthetic`"
    )
    found.add_argument(
        "--captioner", metavar="URI", help="folder of an image-to-text model; captions clips without one"
    )
    kept = arguments.add_argument_group("policy and deduplication")
    kept.add_argument(
        "--keep", action="append", default=[], metavar="SQL", help='rule, e.g. "motion >= 0.05" (repeatable)'
    )
    kept.add_argument(
        "--duplicate-distance",
        type=int,
        default=DedupThresholds.distance,
        metavar="BITS",
        help="maximum Hamming distance of perceptual hashes of duplicates, 0 to 16",
    )
    kept.add_argument(
        "--duplicate-cosine",
        type=float,
        default=DedupThresholds.cosine,
        metavar="COSINE",
        help="minimum cosine similarity of embeddings of duplicates, 0.5 to 1",
    )
    add_run_options(arguments)
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job."""
    options = build_parser().parse_args(argv)
    require_output(options.output)
    result = ingest(options.input, options.output, _options(options), options.captions)
    print(
        f"{result.uri}: {result.clips} clips, {result.kept} of them kept, of {result.planned} videos "
        f"({result.ok} ok, {result.filtered} filtered, {result.failed} failed; {result.done_now} of them now), "
        f"{result.seconds:.0f} s"
    )


def _options(options: argparse.Namespace) -> IngestOptions:
    config = load_preset(options.preset, options.overrides)
    _check(options)
    names = () if options.headers_only or options.scores == "none" else score_names(options.scores.split(","))
    spec = IngestSpec(
        num_frames=config.num_output_frames if options.num_frames is None else options.num_frames,
        fps=config.output_fps if options.fps is None else options.fps,
        stride_frames=options.stride,
        split_shots=not (options.no_shots or options.headers_only),
        scores=(*names, "aesthetic") if options.aesthetic else names,
        hashes=not options.headers_only,
        thumbnails=not options.headers_only,
        decoder=options.decoder,
        embedding=options.embedding,
        aesthetic=options.aesthetic,
        captioner=options.captioner,
    )
    dedup = DedupThresholds(options.duplicate_distance, options.duplicate_cosine)
    return IngestOptions(spec, Policy.of(options.keep), run_options(options), dedup)


def _check(options: argparse.Namespace) -> None:
    for name in ("embedding", "aesthetic", "captioner"):
        if getattr(options, name) == "":
            raise UserError(f"--{name} is empty: give a folder, or leave it out.")
    if not 0 <= options.duplicate_distance <= LARGEST_DISTANCE:
        said = f"--duplicate-distance is {options.duplicate_distance}, but it is 0 to {LARGEST_DISTANCE} bits of 64."
        raise UserError(said)
    if not 0.5 < options.duplicate_cosine <= 1:
        raise UserError(f"--duplicate-cosine is {options.duplicate_cosine}, but it is above 0.5, up to 1.")
    if options.aesthetic and not options.embedding:
        raise UserError("--aesthetic scores CLIP embeddings: give the CLIP model's folder with --embedding too.")
    if options.headers_only and (options.embedding or options.captioner):
        raise UserError(
            "--headers-only decodes no frames, which --embedding and --captioner need: give one or the other."
        )


if __name__ == "__main__":
    sys.exit(run_job(main))
