"""Exponential moving average of the weights, kept as one more slot of the optimizer's state.

DeepSpeed gives an optimizer the fp32 master weights that a worker owns: all of them at ZeRO 0, its partition at
ZeRO 1 to 3. An average in the optimizer state is exact (an average of bf16 weights would not change), needs no
communication, takes 1/workers of the memory, and is saved, restored and resharded with the moments of Adam.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

SLOT = "ema"


def decay_at(step: int, decay: float) -> float:
    """Return the decay of step 1, 2, ...: it grows to `decay`, so that short runs forget the initial weights too."""
    return min(decay, (1 + step) / (10 + step))


class AdamWithEma(torch.optim.AdamW):
    """AdamW with a moving average of the updated weights; `ema_decay` 0 is plain AdamW."""

    def __init__(self, params: Iterable[Any], ema_decay: float = 0.0, **options: Any) -> None:
        super().__init__(params, **options)
        self.ema_decay = ema_decay

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take AdamW's step, then move the averages of the updated weights."""
        result = super().step(closure)
        if self.ema_decay:
            weights = [weight for group in self.param_groups for weight in group["params"] if weight.grad is not None]
            self._average(weights)
        return result

    def _average(self, weights: list[Tensor]) -> None:
        averages, updated = [], []
        for weight in weights:
            state = self.state[weight]
            if SLOT not in state:
                state[SLOT] = weight.detach().clone()
                continue
            averages.append(state[SLOT])
            updated.append(weight.detach())
        if averages:
            step = int(self.state[weights[0]]["step"])
            torch._foreach_lerp_(averages, updated, 1 - decay_at(step, self.ema_decay))
