"""Description of a training run: steps and their state; for a dry run also sizes and memory."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.train import dag
from pipelines.train.stage import batch_plan
from videogen.config import TrainingConfig

if TYPE_CHECKING:
    from pipelines.train.cascade import Cascade

_GIB = 2**30


def describe(cascade: "Cascade") -> str:
    """Return a table of the steps with state and dependencies."""
    pending = dag.pending(cascade.nodes)
    rows = [
        (node.name, "to do" if node.name in pending else "done", node.what, ", ".join(node.needs) or "-")
        for node in cascade.nodes
        if node.name != "assemble"
    ]
    last = cascade.nodes[-1]
    rows.append((last.name, "to do" if last.name in pending else "done", last.what, "all of them"))
    return _table(("step", "state", "what", "needs"), rows)


def describe_training(cascade: "Cascade") -> str:
    """Return a table of the stages: parameters (counted on the meta device), batches, ZeRO memory of one worker."""
    from videogen.stages import count_parameters

    counts = count_parameters(cascade.config)
    rows = []
    for stage in cascade.stages:
        training = cascade.config.training_of(stage)
        plan = batch_plan(cascade.config, stage)
        device = "GPU" if training.use_gpu else "CPU"
        rows.append(
            (
                stage,
                f"{counts[stage]:,}",
                f"{training.steps:,}",
                f"{plan.global_batch} = {plan.world_size} x {plan.accumulation} x {plan.micro_batch}",
                f"{training.num_workers} x {device}",
                f"{training.precision}, ZeRO {training.zero_stage}",
                f"{state_bytes(counts[stage], training) / _GIB:.3f} GiB",
            )
        )
    header = (
        "stage",
        "parameters",
        "steps",
        "batch = workers x passes x clips",
        "workers",
        "engine",
        "states a worker",
    )
    return _table(header, rows) + "\n\nStates are weights, gradients, optimizer and average; activations come on top."


def state_bytes(num_parameters: int, training: TrainingConfig) -> int:
    """Return the bytes of model states per worker; all states are fp32, bf16 is the compute precision only."""
    weights = gradients = master = 4
    optimizer = 8 + (4 if training.ema_decay else 0)
    shards = training.num_workers
    whole, shared = {
        0: (weights + gradients + optimizer, 0),
        1: (weights + gradients, master + optimizer),
        2: (weights, gradients + master + optimizer),
        3: (0, weights + gradients + master + optimizer),
    }[training.zero_stage]
    return num_parameters * whole + num_parameters * shared // shards


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
