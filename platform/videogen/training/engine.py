"""DeepSpeed engine for every stage: ZeRO 0 to 3, fp32 or bf16, with the moving average inside the optimizer."""

import logging
import math
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from videogen.training.ema import SLOT, AdamWithEma

if TYPE_CHECKING:
    from videogen.config import TrainingConfig
    from videogen.stages.objective import Objective
    from videogen.training.loader import BatchPlan


def import_deepspeed() -> Any:
    """Import DeepSpeed without building extensions or logging; torch.distributed must be initialised before."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    import deepspeed.ops

    # Otherwise the first engine on a CPU compiles this extension for half a minute; gloo replaces it.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.utils.logger.setLevel(logging.ERROR)
    # DeepSpeed calls collectives by names that torch has deprecated, in every step.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    return deepspeed


def deepspeed_config(training: "TrainingConfig", plan: "BatchPlan", load_universal: bool = False) -> dict[str, Any]:
    """Return DeepSpeed's configuration of one stage."""
    return {
        "train_batch_size": plan.global_batch,
        "train_micro_batch_size_per_gpu": plan.micro_batch,
        "gradient_accumulation_steps": plan.accumulation,
        "zero_optimization": {"stage": training.zero_stage},
        "zero_allow_untested_optimizer": True,
        # At ZeRO 0 `Engine.step` clips, so that the norm is known before the step.
        "gradient_clipping": training.max_grad_norm if training.zero_stage else 0.0,
        # Autocast over fp32 weights: no separate master weights, and objectives are independent of the precision.
        "torch_autocast": {"enabled": training.precision == "bf16", "dtype": "bfloat16"},
        "checkpoint": {"load_universal": load_universal},
        "steps_per_print": sys.maxsize,
    }


class Engine:
    """The objective under DeepSpeed. All methods must be called by every worker."""

    def __init__(
        self, objective: "Objective", training: "TrainingConfig", plan: "BatchPlan", load_universal: bool = False
    ) -> None:
        deepspeed = import_deepspeed()
        self.objective = objective
        self.zero_stage = training.zero_stage
        self.uses_ema = training.ema_decay > 0
        self._max_grad_norm = training.max_grad_norm
        trained = [weight for weight in objective.parameters() if weight.requires_grad]
        optimizer = AdamWithEma(
            trained,
            ema_decay=training.ema_decay,
            lr=training.learning_rate,
            betas=training.betas,
            weight_decay=training.weight_decay,
            fused=True,
        )
        self._trained = trained
        self.deepspeed, *_ = deepspeed.initialize(
            model=objective,
            optimizer=optimizer,
            config=deepspeed_config(training, plan, load_universal),
            dist_init_required=False,
        )
        self.device = torch.device(self.deepspeed.device)
        if not training.zero_stage and plan.world_size == 1:
            # DeepSpeed would copy all gradients into a buffer and back to average them over one worker.
            self.deepspeed.enable_backward_allreduce = False
        if objective.adversary is not None:
            objective.adversary.to(self.device)

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        """Return the loss of one micro-batch (CPU tensors) and its logs."""
        moved = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
        result: tuple[Tensor, dict[str, Any]] = self.deepspeed(moved, generator)
        return result

    def backward(self, loss: Tensor, is_last: bool = True) -> None:
        """Add the gradients of one micro-batch; after the step's last one they are averaged over workers."""
        self.deepspeed.backward(loss)
        if not is_last:
            self.deepspeed.step()  # only counts the micro-batch

    def step(self, learning_rate: float) -> float:
        """Clip, take the optimizer step, and return the norm of the gradients before clipping.

        At ZeRO 0 a norm that is not finite is returned without a step.
        """
        if not self.zero_stage:
            norm = float(torch.nn.utils.clip_grad_norm_(self._trained, self._max_grad_norm))
            if not math.isfinite(norm):
                return norm
        for group in self.deepspeed.optimizer.param_groups:
            group["lr"] = learning_rate
        self.deepspeed.step()
        return float(self.deepspeed.get_global_grad_norm()) if self.zero_stage else norm

    def state_dict(self) -> dict[str, Tensor]:
        """Return the model's full fp32 weights on the CPU: the moving averages if they are kept."""
        model = self.objective.model
        weights = dict(model.named_parameters(remove_duplicate=False))
        gathered: dict[int, Tensor] = {}
        state = {}
        for name, value in model.state_dict().items():
            weight = weights.get(name)
            if weight is None:
                state[name] = value.detach().cpu().clone()
                continue
            if id(weight) not in gathered:
                gathered[id(weight)] = self._full(weight).detach().float().cpu().clone()
            state[name] = gathered[id(weight)]
        return state

    def _full(self, weight: torch.nn.Parameter) -> Tensor:
        """Return one whole weight, or its average."""
        optimizer = self.deepspeed.optimizer
        if not weight.requires_grad:
            deepspeed = import_deepspeed()
            with deepspeed.zero.GatheredParameters([weight], enabled=hasattr(weight, "ds_id")):
                return weight.detach().clone()
        if not self.zero_stage:
            return optimizer.state.get(weight, {}).get(SLOT, weight) if self.uses_ema else weight
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        full = safe_get_full_optimizer_state(weight, SLOT) if self.uses_ema else safe_get_full_fp32_param(weight)
        return weight if full is None else full
