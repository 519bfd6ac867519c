"""Schedule, guidance and the reference prior, against their formulas."""

import math
from typing import Literal

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from videogen.config import DiffusionConfig, SamplingConfig
from videogen.diffusion import conditioning
from videogen.diffusion.denoiser import VideoDenoiser
from videogen.diffusion.sampling import guided, sample_latents
from videogen.diffusion.schedule import NoiseSchedule, build_scheduler

CONFIG = DiffusionConfig()


def test_schedule_agrees_with_diffusers() -> None:
    reference = DDPMScheduler(**CONFIG.model_dump(), prediction_type="v_prediction", rescale_betas_zero_snr=True)
    schedule = NoiseSchedule(CONFIG)
    data, noise = torch.randn(3, 4, 2, 8, 8), torch.randn(3, 4, 2, 8, 8)
    timesteps = torch.tensor([0, 500, 999])
    torch.testing.assert_close(schedule.add_noise(data, noise, timesteps), reference.add_noise(data, noise, timesteps))
    torch.testing.assert_close(
        schedule.velocity(data, noise, timesteps), reference.get_velocity(data, noise, timesteps)
    )
    assert torch.equal(schedule.add_noise(data, noise, timesteps)[2], noise[2]), "the last timestep must be pure noise"


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_timesteps_are_stratified(shift: float) -> None:
    timesteps = NoiseSchedule(CONFIG).sample_timesteps(1000, torch.Generator().manual_seed(0), shift)
    expected = torch.linspace(0, 1, 1000)
    expected = 1000 * shift * expected / (1 + (shift - 1) * expected)
    assert (timesteps.sort().values - expected).abs().max() < 5


def test_spread_timesteps_are_logit_normal() -> None:
    timesteps = NoiseSchedule(CONFIG).sample_timesteps(1000, torch.Generator().manual_seed(0), shift=2.0, logit_std=0.8)
    logits = torch.logit((timesteps.double() + 0.5) / 1000)
    assert logits.mean().item() == pytest.approx(math.log(2.0), abs=0.02)
    assert logits.std().item() == pytest.approx(0.8, abs=0.02)
    assert timesteps.min() >= 0
    assert timesteps.max() <= 999


def test_motion_weight_adds_the_error_of_the_change_from_frame_to_frame() -> None:
    schedule, timesteps = NoiseSchedule(CONFIG), torch.tensor([100, 999])
    data, noise = torch.randn(2, 4, 3, 8, 8), torch.randn(2, 4, 3, 8, 8)
    truth = schedule.velocity(data, noise, timesteps)
    error = torch.randn(2, 4, 3, 8, 8)

    def loss(error: torch.Tensor, weighting: Literal["velocity", "sample"], weight: float) -> torch.Tensor:
        return schedule.loss(truth + error, data, noise, timesteps, weighting, weight)

    change = np.diff(error.numpy(), axis=2)
    expected = (error.numpy() ** 2).mean((1, 2, 3, 4)) + 0.5 * (change**2).mean((1, 2, 3, 4))
    np.testing.assert_allclose(loss(error, "velocity", 0.5), expected, rtol=1e-4)
    spread = schedule.scales(torch.ones(2), timesteps)[1].numpy()
    np.testing.assert_allclose(loss(error, "sample", 0.5), expected * spread**2, rtol=1e-4)
    still = error[:, :, :1].expand_as(error)
    torch.testing.assert_close(loss(still, "velocity", 0.5), loss(still, "velocity", 0.0))


def test_a_clip_of_one_frame_has_no_motion_to_weigh() -> None:
    schedule, timesteps = NoiseSchedule(CONFIG), torch.tensor([500])
    data, noise, predicted = (torch.randn(1, 4, 1, 8, 8) for _ in range(3))
    plain = schedule.loss(predicted, data, noise, timesteps, "velocity")
    torch.testing.assert_close(schedule.loss(predicted, data, noise, timesteps, "velocity", 1.0), plain)


def test_a_perfect_denoiser_is_sampled_exactly() -> None:
    """With the true velocity of a single clip the sampler must land on that clip, from pure noise."""
    schedule, clip = NoiseSchedule(CONFIG), torch.randn(1, 4, 3, 8, 8)

    class Truth(VideoDenoiser):
        def __call__(self, noisy: torch.Tensor, timesteps: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
            alpha, sigma = self.schedule.scales(noisy, timesteps)
            return (alpha * noisy - clip) / sigma.clamp(min=1e-4)

    result = sample_latents(
        Truth(None, schedule),
        build_scheduler(CONFIG),
        torch.randn(1, 4, 3, 8, 8),
        prompt_embeds=torch.zeros(1, 1, 1),
        negative_prompt_embeds=torch.zeros(1, 1, 1),
        reference=clip[:, :, 0],
        conditions={},
        sampling=SamplingConfig(num_inference_steps=10, guidance_scale=1),
    )
    torch.testing.assert_close(result, clip, atol=1e-2, rtol=0)


def test_guidance_follows_its_equation_and_skips_what_cancels() -> None:
    predictions = {(t, r): torch.randn(2, 4) for t in (True, False) for r in (True, False)}
    calls = []

    def predict(text: bool, reference: bool) -> torch.Tensor:
        calls.append((text, reference))
        return predictions[text, reference]

    for text_scale, reference_scale, num_calls in [(1, 1, 1), (3, 1, 2), (1, 2, 2), (3, 2, 3)]:
        calls.clear()
        sampling = SamplingConfig(guidance_scale=text_scale, reference_guidance_scale=reference_scale)
        result = guided(predict, sampling)
        assert len(calls) == num_calls
        if text_scale != 1:
            nothing, image, full = predictions[False, False], predictions[False, True], predictions[True, True]
            expected = nothing + reference_scale * (image - nothing) + text_scale * (full - image)
            torch.testing.assert_close(result, expected)


def test_reference_prior_is_the_best_linear_guess() -> None:
    """Against a regression on drawn samples of the model that the prior assumes."""
    torch.manual_seed(0)
    schedule, deviation, count = NoiseSchedule(CONFIG), 0.5, 200_000
    reference = torch.full((count,), 0.7)
    data, noise = reference + deviation * torch.randn(count), torch.randn(count)
    timesteps = torch.full((count,), 600)
    noisy, target = schedule.add_noise(data, noise, timesteps), schedule.velocity(data, noise, timesteps)
    denoiser = VideoDenoiser(lambda inputs, *_: torch.zeros_like(inputs[:, :1]), schedule, deviation)
    shape = (count, 1, 1, 1, 1)
    guess = denoiser(
        noisy.reshape(shape),
        timesteps,
        torch.zeros(count, 1, 1),
        reference=reference.reshape(count, 1, 1, 1),
        reference_present=torch.ones(count),
        conditions={},
    ).flatten()
    slope = ((noisy - noisy.mean()) * (target - target.mean())).mean() / noisy.var()
    fitted = target.mean() + slope * (noisy - noisy.mean())
    torch.testing.assert_close(guess, fitted, atol=0.02, rtol=0)


def test_a_dropped_reference_leaves_no_trace() -> None:
    noisy = torch.randn(1, 4, 3, 8, 8)
    inputs = [conditioning.unet_input(noisy, torch.randn(1, 4, 8, 8), torch.zeros(1)) for _ in range(2)]
    assert torch.equal(*inputs)
    assert inputs[0].shape[1] == conditioning.input_channels(4, with_low_res=False)
