"""Training checkpoints: DeepSpeed's shards, the adversary, and a manifest that is written last.

A checkpoint without its manifest, or with a file of a size other than in the manifest, is refused. A checkpoint of
another number of workers is converted to DeepSpeed's universal form when it is loaded.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from videogen.training.ema import SLOT
from videogen.training.engine import Engine
from videogen.training.state import TrainState

MANIFEST_NAME = "manifest.json"
_TAG = "state"
_ADVERSARY_NAME = "adversary.pt"
# Without it DeepSpeed's converter refuses shards of ZeRO 1 and 2.
_UNIVERSAL = {"universal_checkpoint_info": {"universal_checkpoint_version": 0.4}}


def save(engine: Engine, state: TrainState, folder: str | Path) -> None:
    """Write this worker's shards into its own `folder`; the folders of all workers together are the checkpoint."""
    folder = Path(folder)
    engine.deepspeed.save_checkpoint(str(folder), tag=_TAG, client_state=dict(_UNIVERSAL))
    rank = dist.get_rank()
    if rank == 0 and engine.objective.adversary is not None:
        torch.save(engine.objective.adversary.state_dict(), folder / _ADVERSARY_NAME)
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    gathered: list[dict[str, int]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(gathered, sizes)
    if rank == 0:
        files = {name: size for part in gathered for name, size in part.items()}
        manifest = {"state": state.as_dict(), "zero_stage": engine.zero_stage, "files": files}
        (folder / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2))


def read_state(folder: str | Path) -> TrainState:
    """Return the state of a complete checkpoint.

    Raises:
        RuntimeError: the checkpoint is not complete.
    """
    folder = Path(folder)
    if not (folder / MANIFEST_NAME).is_file():
        raise RuntimeError(f"checkpoint {folder} has no {MANIFEST_NAME}: it was never finished; remove it")
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    for name, size in manifest["files"].items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else None
        if found != size:
            raise RuntimeError(f"checkpoint file {path} has {found} bytes instead of {size}: remove the checkpoint")
    return TrainState.from_dict(manifest["state"])


def is_resharded(state: TrainState, zero_stage: int, world_size: int) -> bool:
    """Return whether the shards must be converted; at ZeRO 0 every worker holds everything."""
    return zero_stage > 0 and state.world_size != world_size


def load(engine: Engine, state: TrainState, folder: str | Path) -> None:
    """Restore a checkpoint at any number of workers; `engine` was built with the result of `is_resharded`."""
    folder = Path(folder)
    if is_resharded(state, engine.zero_stage, dist.get_world_size()):
        with _universal(folder, engine.uses_ema) as converted:
            _load_deepspeed(engine, converted, f"{_TAG}_universal")
            if engine.zero_stage == 3 and engine.uses_ema:
                _restore_average(engine, converted / f"{_TAG}_universal" / "zero")
    else:
        _load_deepspeed(engine, folder, _TAG)
    adversary = engine.objective.adversary
    if adversary is not None:
        adversary.load_state_dict(torch.load(folder / _ADVERSARY_NAME, map_location=engine.device, weights_only=True))


def _load_deepspeed(engine: Engine, folder: Path, tag: str) -> None:
    path, _ = engine.deepspeed.load_checkpoint(str(folder), tag=tag)
    if path is None:
        raise RuntimeError(f"DeepSpeed found no checkpoint in {folder}")


@contextmanager
def _universal(folder: Path, with_average: bool) -> Iterator[Path]:
    """Yield a folder with the universal form of a checkpoint, made once on each node and removed afterwards."""
    shared = [tempfile.mkdtemp(prefix="videogen-universal-") if dist.get_rank() == 0 else ""]
    dist.broadcast_object_list(shared)
    scratch = Path(shared[0])
    makes_it = int(os.environ.get("LOCAL_RANK", "0")) == 0
    if makes_it:
        scratch.mkdir(exist_ok=True)
        _convert(folder, scratch, with_average)
    dist.barrier()
    try:
        yield scratch
    finally:
        dist.barrier()
        if makes_it:
            shutil.rmtree(scratch, ignore_errors=True)


def _convert(folder: Path, scratch: Path, with_average: bool) -> None:
    target = scratch / f"{_TAG}_universal"
    _run_converter(folder / _TAG, target)
    (scratch / "latest_universal").write_text(target.name)
    if not with_average:
        return
    # The converter supports only Adam's two slots, so a second conversion takes the average in place of the first slot.
    disguised, converted = scratch / "disguised", scratch / "disguised_universal"
    shutil.copytree(folder / _TAG, disguised)
    for path in disguised.glob("*_optim_states.pt"):
        shard = torch.load(path, map_location="cpu", weights_only=False)
        for slots in _slots(shard).values():
            slots["exp_avg"] = slots[SLOT]
        torch.save(shard, path)
    _run_converter(disguised, converted)
    for path in (converted / "zero").rglob("exp_avg.pt"):
        path.rename(target / path.relative_to(converted).with_name(f"{SLOT}.pt"))
    shutil.rmtree(disguised)
    shutil.rmtree(converted)


def _slots(shard: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Return the optimizer's slots by group; ZeRO 1 and 2 nest them differently from ZeRO 3."""
    optimizer = shard["optimizer_state_dict"]
    groups = optimizer.get("base_optimizer_state", optimizer.get("optimizer_state_dict"))
    state: dict[int, dict[str, Any]] = groups["state"]
    return state


def _run_converter(source: Path, target: Path) -> None:
    # A process of its own: the converter forks a pool, which a process with threads must not do.
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal"]
    done = subprocess.run(
        [*command, "--input_folder", str(source), "--output_folder", str(target)],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"cannot convert checkpoint {source} to another number of workers: {done.stderr[-500:]}")


def _restore_average(engine: Engine, folder: Path) -> None:
    """Restore the average, which DeepSpeed's universal loader of ZeRO 3 ignores."""
    optimizer = engine.deepspeed.optimizer
    for group, flat in zip(optimizer.fp16_groups, optimizer.fp32_partitioned_groups_flat, strict=True):
        average, offset = torch.zeros_like(flat), 0
        for weight in group:
            part = optimizer.load_hp_checkpoint_state(str(folder / optimizer.param_names[weight]), SLOT, param=weight)
            average.narrow(0, offset, part.numel()).copy_(part)
            offset += part.numel()
        optimizer.optimizer.state[flat][SLOT] = average
