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


@pytest.mark.parametrize("stage", ["base", "upsample"])
def test_the_error_of_motion_counts_as_much_as_the_stage_says(tiny, tiny_model, stage):
    torch.manual_seed(0)
    batch = {
        "latents": torch.randn(2, 4, 3, 8, 8),
        "low_res": torch.randn(2, 4, 3, 4, 4),
        "prompt_embeds": torch.randn(2, tiny.text.max_length, tiny.text.model.hidden_size),
    }
    key = "base" if stage == "base" else "upsample.0"
    losses = []
    for weight in (0, 1, 3):
        objective = build_objective(stage, apply_overrides(tiny, [f"{key}.motion_weight={weight}"]), tiny_model)
        with torch.no_grad():
            losses.append(float(objective(batch, torch.Generator().manual_seed(0))[0]))
    # The last layer starts at zero, so all three predict the same: what the reference tells.
    assert losses[1] > 1.1 * losses[0]
    assert losses[2] - losses[0] == pytest.approx(3 * (losses[1] - losses[0]), rel=1e-3)
