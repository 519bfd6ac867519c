r"""Encode videos, or a clips table, into a table of latents for training.

    python jobs/encode_latents.py --input s3://bucket/videos --captions s3://bucket/captions.parquet \
        --output s3://bucket/latents --preset tiny

The same command continues an interrupted run, and has no effect when everything is encoded. Videos that cannot be read
are listed in OUTPUT/errors.parquet with the reason, and never stop the job.

Default of --autoencoder: the pretrained one of the preset; else that of a model beside the output (../model or
../../model); else the preset's autoencoder is first trained on the input, into OUTPUT/autoencoder.
"""

import argparse
import sys
from collections.abc import Sequence

from pipelines.encode.corpus import Corpus
from pipelines.encode.pipeline import encode
from pipelines.encode.plan import EncodeOptions, find_autoencoder, require_fitting
from pipelines.encode.preflight import require_own_latents, require_usable_video
from pipelines.runner.options import add_run_options, run_options
from pipelines.runner.preflight import require_output
from videogen import storage
from videogen.cli import add_preset_options, parser, run_job
from videogen.errors import UserError
from videogen.stages import load_preset

_MAX_ENCODERS = 100_000


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the job's options."""
    arguments = parser(__doc__)
    arguments.add_argument("--input", required=True, metavar="URI", help="folder or manifest of videos, or clips table")
    arguments.add_argument("--output", required=True, metavar="URI", help="folder of the table of latents")
    arguments.add_argument(
        "--captions", metavar="URI", help="table with `video` and `caption`; default: INPUT/captions.*, if any"
    )
    arguments.add_argument("--autoencoder", metavar="URI", help="folder of the image VAE, or of a model that holds it")
    arguments.add_argument(
        "--encoders",
        type=int,
        metavar="N",
        help="actors with the VAE; default: one per GPU, or without GPUs one per core, which also decodes",
    )
    arguments.add_argument("--where", metavar="SQL", help="condition on the columns of the clips table")
    arguments.add_argument("--with-dropped", action="store_true", help="include clips dropped by the policy")
    add_run_options(arguments)
    add_preset_options(arguments)
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job."""
    options = build_parser().parse_args(argv)
    config = load_preset(options.preset, options.overrides)
    if options.encoders is not None and not 1 <= options.encoders <= _MAX_ENCODERS:
        said = f"--encoders is {options.encoders}, but it is from 1 to {_MAX_ENCODERS}: leave it out to use all cores."
        raise UserError(said)
    if options.autoencoder == "":
        raise UserError("--autoencoder is empty: give a folder, or leave it out for the preset's own.")
    how = EncodeOptions(options.encoders, options.where, options.with_dropped, options.decoder, run_options(options))
    require_output(options.output)
    corpus = Corpus(options.input, options.captions, "Input")
    require_fitting(corpus, storage.absolute(options.output), config, how)
    autoencoder = options.autoencoder or find_autoencoder(options.output, config)
    if autoencoder is None:
        from pipelines.train.cascade import train_autoencoder

        if not options.replace:
            whose = "the autoencoder that would be trained for it now"
            require_own_latents(storage.absolute(options.output), (), whose)
        require_usable_video(corpus, config)
        autoencoder = train_autoencoder(config, data=options.input, output=options.output)
    if config.num_frames_buckets:
        said = (
            f"clips of {config.num_frames} key frames are encoded here; for those of num_frames_buckets run this again"
        )
        print(f"{said} with --set num_frames=N, --autoencoder {autoencoder} and another --output", file=sys.stderr)
    result = encode(options.input, options.output, config, autoencoder, options.captions, how)
    print(
        f"{result.uri}: {result.ok} of {result.planned} clips, {result.encoded_now} of them now, "
        f"{result.filtered} filtered, {result.failed} failed, {result.seconds:.0f} s"
    )


if __name__ == "__main__":
    sys.exit(run_job(main))
