"""Evaluate a model on held-out data: prompt faithfulness from pixels, decoder and interpolation against baselines.

    python jobs/evaluate.py --model runs/demo/model --data runs/demo/data --output runs/demo/evaluation

DATA is a folder of jobs/make_corpus.py (its held_out/ is used), any folder of videos, or tables of latents. Videos for
its prompts.parquet, or else for the captions of its videos, are generated into OUTPUT/generated, unless --generated
names an output of jobs/generate.py. Writes OUTPUT/evaluation.json, or OUTPUT itself if it ends in .json. Accuracies are
fractions from 0 to 1; metrics without data (no captions, no key frames) are null. The same command has no effect unless
model, data or videos have changed.
"""

import argparse
import io
import sys
from collections.abc import Sequence

from pipelines.cluster.progress import Progress
from pipelines.generate.fingerprint import fingerprint, model_fingerprint
from pipelines.generate.manifest import MANIFEST_NAME, Row, made_by, read_manifest
from pipelines.generate.model import read_config
from pipelines.generate.pipeline import GenerateOptions, generate
from pipelines.generate.prompts import read_requests
from pipelines.runner.preflight import require_output
from videogen import storage
from videogen.cli import add_set_option, parser, run_job
from videogen.errors import UserError
from videogen.evaluation.evaluate import evaluate, evaluation_steps
from videogen.evaluation.held_out import HeldOut, find_held_out
from videogen.stages import NOT_THE_MODEL


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the job's options."""
    arguments = parser(__doc__)
    arguments.add_argument("--model", required=True, metavar="URI", help="model folder")
    arguments.add_argument("--data", required=True, metavar="URI", help="held-out data: videos or tables of latents")
    arguments.add_argument("--output", required=True, metavar="URI", help="folder, or the .json file itself")
    arguments.add_argument("--generated", metavar="URI", help="output of jobs/generate.py with this model")
    arguments.add_argument(
        "--max-clips", type=int, default=48, metavar="N", help="maximum number of real clips per corpus"
    )
    arguments.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="default: cpu")
    add_set_option(arguments)
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job."""
    options = build_parser().parse_args(argv)
    if options.max_clips < 1:
        raise UserError(f"--max-clips is {options.max_clips}, but at least one clip is needed.")
    require_output(_folder_of(options.output))
    model, output = storage.absolute(options.model), storage.absolute(options.output)
    config = read_config(model, options.overrides)
    held_out = find_held_out(options.data, model, config, options.max_clips)
    uri = output if output.endswith(".json") else storage.join(output, "evaluation.json")
    if options.generated:
        videos = _listed(
            storage.absolute(options.generated), model_fingerprint(model, [config.model_dump_json()]), held_out
        )
    else:
        videos = _made(model, held_out, storage.join(storage.parent(uri), "generated"), tuple(options.overrides))
    made_from = model_fingerprint(
        model,
        [config.model_dump_json(), fingerprint(storage.absolute(options.data)), str(videos), str(options.max_clips)],
    )
    if storage.exists(uri) and storage.read_json(uri).get("made_from") == made_from:
        print(f"{uri}: up to date")
        return
    steps = evaluation_steps(held_out, videos)
    with (
        storage.local_copy(model, exclude=NOT_THE_MODEL) as folder,
        Progress() as progress,
        progress.task("evaluate", steps, "clips") as task,
    ):
        result = evaluate(config, folder, held_out, videos, task.advance, options.device)
    storage.write_json(uri, {**result, "made_from": made_from})
    print(uri)
    for name, value in result.items():
        if isinstance(value, float | int):
            print(f"  {name:34} {value:g}")


def _folder_of(output: str) -> str:
    return storage.parent(output) if output.endswith(".json") else output


def _listed(generated: str, maker: str, held_out: HeldOut) -> list[Row]:
    """Return the rows of a generation run, which must be of this model and whole."""
    storage.require_readable(generated, "Generated videos")
    if not storage.exists(storage.join(generated, MANIFEST_NAME)):
        raise UserError(f"Generated videos {generated!r} have no {MANIFEST_NAME}: give an output of jobs/generate.py.")
    theirs = made_by(generated)
    if theirs is None:
        print(f"warning: {generated} does not record its model; assuming this one", file=sys.stderr)
    elif theirs != maker:
        raise UserError(
            f"Generated videos {generated!r} were made by another model or with other settings: give the same --set as "
            f"to jobs/generate.py, run that again, or leave out --generated."
        )
    rows = read_manifest(generated)
    missing = _missing(rows, held_out)
    if missing:
        raise UserError(
            f"Generated videos {generated!r} lack {len(missing)} of the prompts in {held_out.prompts!r}, the first is "
            f"{missing[0]!r}: run jobs/generate.py again to finish them, or leave out --generated."
        )
    return rows


def _missing(rows: Sequence[Row], held_out: HeldOut) -> list[str]:
    """Return the ids of held-out prompts that a run of just these prompts still lacks."""
    if held_out.prompts is None:
        return []
    listed = {(row["id"], row["prompt"], row["seed"]) for row in rows}
    wanted = {(one.id, one.prompt, one.seed) for one in read_requests(held_out.prompts)}
    # A run of other prompts altogether is someone's own choice.
    return sorted(name for name, *_ in wanted - listed) if wanted & listed else []


def _made(model: str, held_out: HeldOut, folder: str, overrides: tuple[str, ...]) -> list[Row]:
    """Generate the held-out prompts."""
    import pandas as pd

    prompts = held_out.prompts
    if prompts is None:
        captions = sorted({clip.caption for clips in held_out.corpora.values() for clip in clips if clip.caption})
        if not captions:
            return []
        buffer = io.BytesIO()
        pd.DataFrame({"prompt": captions}).to_parquet(buffer)
        prompts = storage.join(folder, "prompts.parquet")
        storage.write_bytes(prompts, buffer.getvalue())
    return generate(model, prompts, folder, GenerateOptions(overrides=overrides)).rows


if __name__ == "__main__":
    sys.exit(run_job(main))
