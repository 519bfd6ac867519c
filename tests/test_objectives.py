"""Objectives: what a training step of a stage is made of, without the loop around it."""

import pytest
import torch

from videogen.config import apply_overrides
from videogen.training.objectives import build_objective


@pytest.mark.parametrize("passes", [1, 3])
def test_the_adversary_begins_after_its_share_of_the_steps_however_many_passes_a_step_has(tiny, tiny_model, passes):
    settings = ["steps=2", f"gradient_accumulation_steps={passes}", "batch_size=3"]
    config = apply_overrides(
        tiny, ["decode.adversarial_start=0.5", *(f"decode.training.{setting}" for setting in settings)]
    )
    objective = build_objective("decode", config, tiny_model)
    batch = {
        "latents": torch.zeros(1, config.num_output_frames, 4, 4, 4),
        "frames": torch.zeros(1, config.num_output_frames, 3, 16, 16),
    }
    with torch.no_grad():
        logs = [objective(batch, torch.Generator().manual_seed(index))[1] for index in range(2 * passes)]
    assert ["adversarial" in log for log in logs] == [False] * passes + [True] * passes
