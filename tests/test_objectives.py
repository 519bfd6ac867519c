"""Objectives: what a training step of a stage is made of, without the loop around it."""

import numpy as np
import pytest
import torch

from videogen.stages import apply_overrides, build_objective

pytestmark = pytest.mark.model


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
        "fps": torch.full((2,), float(tiny.fps)),
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


def test_the_network_is_told_the_rate_of_each_clip(tiny, tiny_model):
    objective = build_objective("base", tiny, tiny_model)
    clip = {
        objective.latents_field: np.zeros((tiny.num_output_frames, 4, 8, 8), np.float16),
        "prompt_embeds": np.zeros((tiny.text.max_length, tiny.text.model.hidden_size), np.float16),
    }
    batch = objective.collate([{**clip, "fps": fps} for fps in (16.0, 12.0)])
    # Of its key frames: those of a clip as it is aimed at have the rate of the preset.
    assert batch["fps"].tolist() == [tiny.fps, 0.75 * tiny.fps]
    for parameter in objective.model.parameters():
        # What a condition adds begins as nothing.
        parameter.data += 0.05 * torch.randn(parameter.shape)
    losses = []
    for fps in (batch["fps"], batch["fps"].flip(0)):
        with torch.no_grad():
            losses.append(float(objective({**batch, "fps": fps}, torch.Generator().manual_seed(0))[0]))
    assert losses[0] != losses[1]
