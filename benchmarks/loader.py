"""Throughput of the training loader beside MosaicML Streaming and WebDataset, on the same clips.

    python benchmarks/loader.py --others /path/to/venv/bin/python

`mosaicml-streaming` needs an older numpy than the platform, so both others run in an environment of their own:

    python -m venv /tmp/others && /tmp/others/bin/pip install torch==2.14.1 torchvision==0.29.1
    /tmp/others/bin/pip install mosaicml-streaming==0.13.0 webdataset==1.0.2

(MosaicML Streaming imports torchvision, which must match its torch.)

Clips of random numbers are written once as a table of latents, as MDS shards and as tar shards. Each loader then yields
one shuffled epoch as batches of float32 tensors, in a process of its own; files are in the operating system's caches.
Loaders alternate; ratios compare runs of the same round, and medians are over rounds. The clock runs from the first
batch to the last, so that start-up does not count (except for the CPU time of worker processes). Before that, the clips
of all loaders are compared one by one.
"""

import argparse
import hashlib
import importlib
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Only the standard library and numpy up here: the other environment runs this file too, and has no platform.

_LATENTS, _TEXT = (61, 4, 16, 16), (77, 768)
"""Of the base stage of the `paper` preset with the text encoder of Stable Diffusion: 243 KB a clip in float16."""
_PIXELS = 8 * _LATENTS[-1]
_ROWS_PER_PART = 64
_SHARD_BYTES = 64 << 20
"""The default of the others."""
_SHUFFLE_BUFFER = 512
_OURS = "ours"

Batch = tuple[list[str], Any, Any]
"""Clip ids, float32 tensors (clips, 61, 4, 16, 16) and (clips, 77, 768)."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark; with --side, only one run of one loader."""
    options = build_parser().parse_args(argv)
    if options.side:
        print(json.dumps(_side(json.loads(options.side))))
        return
    with tempfile.TemporaryDirectory(prefix="videogen-benchmark-", dir=options.folder) as folder:
        _write_clips(Path(folder), options.clips)
        for format_name, python in (("table", sys.executable), ("mds", options.others), ("tar", options.others)):
            _run(python, {"do": f"write {format_name}", "folder": folder})
        contenders = [(name, workers) for workers in options.workers for name in _LOADERS]
        _require_equal_clips(folder, options)
        runs: dict[tuple[str, int], list[dict[str, float]]] = {contender: [] for contender in contenders}
        for number in range(options.rounds):
            # Every other round in reverse order, so that a change of the machine's speed favours no contender.
            for name, workers in contenders if number % 2 == 0 else contenders[::-1]:
                result = _run(_python(name, options), _job("measure", name, folder, workers, options.batch))
                runs[name, workers].append(result)
                print(f"round {number}: {name} {workers} {json.dumps(result)}", file=sys.stderr)
    # Not at the top: the other environment runs this file too, and has no platform.
    from tools.result_files import report

    report("loader", _figures(runs, options), options)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--others", default=sys.executable, metavar="PYTHON", help="where the other loaders are")
    arguments.add_argument("--clips", type=int, default=2048)
    arguments.add_argument("--batch", type=int, default=32)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="our threads, the others' processes")
    arguments.add_argument("--folder", help="where the clips are written for the time being, 1.5 GB")
    arguments.add_argument("--side", help=argparse.SUPPRESS)
    arguments.add_argument("--save", action="store_true", help="write a file to benchmarks/results/")
    arguments.add_argument("--note", default="", help="remark that is saved with the figures")
    return arguments


def _python(name: str, options: argparse.Namespace) -> str:
    return sys.executable if name == _OURS else options.others


def _job(do: str, name: str, folder: str, workers: int, batch: int) -> dict[str, Any]:
    return {"do": do, "name": name, "folder": folder, "workers": workers, "batch": batch}


def _run(python: str, job: dict[str, Any]) -> Any:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [python, "-W", "ignore", __file__, "--side", json.dumps(job)]
    result = subprocess.run(command, check=False, env=env, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{job} in {python} failed:\n{result.stderr[-3000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def _require_equal_clips(folder: str, options: argparse.Namespace) -> None:
    expected = None
    for name in _LOADERS:
        found = _run(_python(name, options), _job("digest", name, folder, 0, options.batch))
        expected = expected or found
        if found != expected or len(found) != options.clips:
            sys.exit(f"{name} gives other clips than {_OURS} ({len(found)} of {options.clips}): no ratio counts.")


def _figures(runs: dict[tuple[str, int], list[dict[str, float]]], options: argparse.Namespace) -> dict[str, Any]:
    from tools.result_files import spread

    rows = []
    for (name, workers), theirs in runs.items():
        if name == _OURS:
            continue
        ours = runs[_OURS, workers]
        ratios = [one["clips_per_s"] / other["clips_per_s"] for one, other in zip(ours, theirs, strict=True)]
        row = {"loader": name, "workers": workers}
        row |= {"clips_per_s": spread([run["clips_per_s"] for run in theirs], 0)}
        row |= {"ours_clips_per_s": spread([run["clips_per_s"] for run in ours], 0), "ours_over_it": spread(ratios, 2)}
        row |= {"cpu_ms_per_clip": spread([run["cpu_ms"] for run in theirs], 2)}
        row |= {"ours_cpu_ms_per_clip": spread([run["cpu_ms"] for run in ours], 2)}
        rows.append(row)
    settings = {"clips": options.clips, "batch": options.batch, "shuffle_buffer": _SHUFFLE_BUFFER}
    clip_kb = int(2 * (np.prod(_LATENTS) + np.prod(_TEXT)) / 1000)
    return {**settings, "clip_kb": clip_kb, "rounds": options.rounds, "loaders": rows}


# --- one side, in a process of its own ------------------------------------------------------------------------------


def _side(job: dict[str, Any]) -> Any:
    folder = Path(job["folder"])
    if job["do"].startswith("write"):
        writers = {"write table": _write_table, "write mds": _write_mds, "write tar": _write_tar}
        writers[job["do"]](folder)
        return None
    batches = _LOADERS[job["name"]](folder, job["workers"], job["batch"])
    return _digests(batches) if job["do"] == "digest" else _measured(batches)


def _measured(batches: Iterator[Batch]) -> dict[str, float]:
    next(batches)
    cpu_s, started = _cpu_s(), time.perf_counter()
    num_clips = sum(len(ids) for ids, _, _ in batches)
    wall_s = time.perf_counter() - started
    cpu_ms = 1000 * (_cpu_s() - cpu_s) / num_clips
    return {"clips_per_s": round(num_clips / wall_s, 1), "cpu_ms": round(cpu_ms, 3)}


def _cpu_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _digests(batches: Iterator[Batch]) -> dict[str, str]:
    return {
        clip_id: hashlib.sha256(one.numpy().tobytes() + other.numpy().tobytes()).hexdigest()[:16]
        for ids, latents, text in batches
        for clip_id, one, other in zip(ids, latents, text, strict=True)
    }


def _write_clips(folder: Path, num_clips: int) -> None:
    """Write the arrays that all formats are made from."""
    rng = np.random.default_rng(0)
    for name, shape in (("latents", _LATENTS), ("text", _TEXT)):
        values = rng.standard_normal((num_clips, *shape), dtype=np.float32).astype(np.float16)
        np.save(folder / f"{name}.npy", values)


def _clips(folder: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("latents", "text")]
    for index, (latents, text) in enumerate(zip(*arrays, strict=True)):
        yield f"clip-{index:06d}", np.asarray(latents), np.asarray(text)


# --- ours -----------------------------------------------------------------------------------------------------------


def _write_table(folder: Path) -> None:
    import pyarrow as pa

    from videogen.data.datasets.clips import ClipSpec
    from videogen.data.datasets.latents_schema import KIND, ROWS_PER_GROUP, SCHEMA_VERSION, latents_schema
    from videogen.data.tables import OK, Lease, Ledger, Outcome, pack_shard, write_part

    uri, size = str(folder / "table"), _LATENTS[-1]
    schema = latents_schema([size], captioned=True)
    clips = _clips(folder)
    with Lease(uri) as lease, Ledger(uri, "benchmark", lease) as ledger:
        ids: list[str] = []
        while rows := [_table_row(*clip) for clip in itertools.islice(clips, _ROWS_PER_PART)]:
            part = pa.Table.from_pylist(rows, schema=schema)
            outcomes = [Outcome(row["item_id"], OK) for row in rows]
            unit_id = f"unit-{len(ids):06d}"
            record = write_part(uri, unit_id, part, outcomes, "benchmark", rows_per_group=ROWS_PER_GROUP)
            ledger.add([record])
            ids += [row["item_id"] for row in rows]
        shape = {"width": [_PIXELS] * len(ids), "height": [_PIXELS] * len(ids), "fps": [24.0] * len(ids)}
        ledger.plan([pa.record_batch({"item_id": ids, **shape})])
        for pack in ledger.plan_packs(_SHARD_BYTES):
            pack_shard(uri, pack)
        manifest = {"kind": KIND, "schema_version": SCHEMA_VERSION, "latent_sizes": [size], "has_captions": True}
        manifest |= {"encoder_fingerprint": "none", "clip": ClipSpec(_LATENTS[0], 24.0, _PIXELS).as_dict()}
        ledger.publish(manifest, ledger.index_rows())


def _table_row(clip_id: str, latents: np.ndarray, text: np.ndarray) -> dict[str, Any]:
    from videogen.data.datasets.latents_schema import latents_row

    texts = dict.fromkeys(("source", "version", "caption", "decoder"), "")
    numbers = {"frame_indices": list(range(_LATENTS[0])), "fps": 24.0, "width": _PIXELS, "height": _PIXELS}
    item = {"item_id": clip_id, "clip_id": clip_id, **texts, **numbers}
    size = _LATENTS[-1]
    nothing = np.zeros((0,), np.float16)
    return latents_row(item, {f"latents_{size}": latents, f"latents_{size}_logvar": nothing, "prompt_embeds": text})


def _ours(folder: Path, workers: int, batch: int) -> Iterator[Batch]:
    from videogen.data.datasets.dataset import JoinedClips
    from videogen.data.datasets.latents_table import LatentsTable
    from videogen.stages.objective import tensor_column
    from videogen.training.loader import BatchPlan, Loader

    fields = ("clip_id", f"latents_{_LATENTS[-1]}", "prompt_embeds")

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        tensors = {field: tensor_column(rows, field) for field in fields[1:]}
        return {"clip_id": [row["clip_id"] for row in rows], **tensors}

    table = JoinedClips([LatentsTable.open(str(folder / "table"))])
    loader = Loader(
        table, fields, collate, BatchPlan(batch), 0, max(1, workers), shuffle_buffer=_SHUFFLE_BUFFER, prefetch_steps=4
    )
    for step in loader.steps(0, len(table) // batch):
        for micro in step:
            yield tuple(micro.batch[name] for name in fields)  # type: ignore[misc]


# --- the others -----------------------------------------------------------------------------------------------------
# Imported by name: the platform does not depend on them.


def _write_mds(folder: Path) -> None:
    columns = {"id": "str", "latents": _mds_type(_LATENTS), "text": _mds_type(_TEXT)}
    writer = importlib.import_module("streaming").MDSWriter(
        out=str(folder / "mds"), columns=columns, size_limit=_SHARD_BYTES
    )
    with writer:
        for clip_id, latents, text in _clips(folder):
            writer.write({"id": clip_id, "latents": latents, "text": text})


def _mds_type(shape: tuple[int, ...]) -> str:
    return f"ndarray:float16:{','.join(map(str, shape))}"


def _streaming(folder: Path, workers: int, batch: int) -> Iterator[Batch]:
    streaming = importlib.import_module("streaming")
    dataset = streaming.StreamingDataset(
        local=str(folder / "mds"), shuffle=True, shuffle_block_size=_SHUFFLE_BUFFER, batch_size=batch
    )
    yield from streaming.StreamingDataLoader(
        dataset, batch_size=batch, num_workers=workers, collate_fn=_collate_mds, **_ahead(workers)
    )


def _collate_mds(rows: list[dict[str, Any]]) -> Batch:
    return _collate([(row["id"], row["latents"], row["text"]) for row in rows])


def _write_tar(folder: Path) -> None:
    (folder / "tar").mkdir()
    pattern = str(folder / "tar" / "%06d.tar")
    writer = importlib.import_module("webdataset").ShardWriter(pattern, maxsize=_SHARD_BYTES, maxcount=10**6, verbose=0)
    with writer:
        for clip_id, latents, text in _clips(folder):
            writer.write({"__key__": clip_id, "latents.npy": latents, "text.npy": text})


def _webdataset(folder: Path, workers: int, batch: int) -> Iterator[Batch]:
    webdataset = importlib.import_module("webdataset")
    shards = sorted(map(str, (folder / "tar").glob("*.tar")))
    dataset = (
        webdataset.WebDataset(shards, shardshuffle=len(shards), seed=0, empty_check=False)
        .shuffle(_SHUFFLE_BUFFER)
        .decode()
    )
    dataset = dataset.to_tuple("__key__", "latents.npy", "text.npy").batched(batch, collation_fn=_collate)
    yield from webdataset.WebLoader(dataset, batch_size=None, num_workers=workers, **_ahead(workers))


def _collate(rows: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> Batch:
    import torch

    ids, latents, text = zip(*rows, strict=True)
    # Converted as a whole by torch, as ours are: fifteen times as fast as one by one in numpy.
    tensors = (torch.from_numpy(np.stack(rows)).float() for rows in (latents, text))
    return (list(ids), *tensors)  # type: ignore[return-value]


def _ahead(workers: int) -> dict[str, Any]:
    return {"prefetch_factor": 2} if workers else {}


_LOADERS: dict[str, Callable[[Path, int, int], Iterator[Batch]]] = {
    _OURS: _ours,
    "MosaicML Streaming": _streaming,
    "WebDataset": _webdataset,
}


if __name__ == "__main__":
    main()
