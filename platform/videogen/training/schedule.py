"""Learning rate schedule as a function of samples, independent of restarts and of the number of workers."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from videogen.config import TrainingConfig

_FINAL_SHARE = 0.05


def learning_rate(samples_seen: int, training: "TrainingConfig") -> float:
    """Return the rate of the step that begins at `samples_seen`: linear warm-up, then a cosine to 5 %."""
    # The first step counts as one; at zero its learning rate would be zero.
    step = samples_seen / training.batch_size + 1
    if step < training.warmup_steps:
        return training.learning_rate * step / training.warmup_steps
    progress = min(1.0, (step - training.warmup_steps) / max(1, training.steps - training.warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return training.learning_rate * (_FINAL_SHARE + (1 - _FINAL_SHARE) * cosine)
