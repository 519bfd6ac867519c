"""Sampling of video latents with classifier-free guidance on text and reference image."""

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch

from videogen.config import SamplingConfig
from videogen.diffusion.denoiser import VideoDenoiser


@torch.no_grad()
def sample_latents(
    denoiser: VideoDenoiser,
    scheduler: Any,
    noise: torch.Tensor,
    *,
    prompt_embeds: torch.Tensor,
    negative_prompt_embeds: torch.Tensor,
    reference: torch.Tensor,
    conditions: Mapping[str, torch.Tensor],
    sampling: SamplingConfig,
    low_res: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return latents (B, C, F, H, W).

    Args:
        denoiser: predicts the velocity.
        scheduler: a diffusers scheduler; copied, so that concurrent calls do not share its step counter.
        noise: (B, C, F, H, W), standard normal.
        prompt_embeds, negative_prompt_embeds: (B, L, D).
        reference: (B, C, H, W) latents of the reference image.
        conditions: name -> (B,).
        low_res: (B, C, F, H, W) upsampled low-resolution latents of an upsample stage.
    """
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(sampling.num_inference_steps, device=noise.device)
    present = torch.ones(noise.shape[0], device=noise.device)

    def predict(latents: torch.Tensor, timestep: torch.Tensor, with_text: bool, with_reference: bool) -> torch.Tensor:
        velocity: torch.Tensor = denoiser(
            latents,
            timestep.expand(len(latents)),
            prompt_embeds if with_text else negative_prompt_embeds,
            reference=reference,
            reference_present=present if with_reference else torch.zeros_like(present),
            conditions=conditions,
            low_res=low_res,
        )
        return velocity

    latents: torch.Tensor = noise * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        inputs = scheduler.scale_model_input(latents, timestep)
        velocity = guided(functools.partial(predict, inputs, timestep), sampling)
        latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
    return latents


def guided(predict: Callable[[bool, bool], torch.Tensor], sampling: SamplingConfig) -> torch.Tensor:
    """Combine predictions by classifier-free guidance separately on text and on reference.

    v = v(-, -) + s_reference (v(-, r) - v(-, -)) + s_text (v(t, r) - v(-, r)), as in InstructPix2Pix
    (arXiv 2211.09800, eq. 3); terms that vanish at a scale of 1 are not computed.

    Args:
        predict: called with (text given, reference given).
    """
    full = predict(True, True)
    result = full
    if sampling.guidance_scale != 1:
        image_only = predict(False, True)
        result = image_only + sampling.guidance_scale * (full - image_only)
        if sampling.reference_guidance_scale != 1:
            nothing = predict(False, False)
            result = result + (sampling.reference_guidance_scale - 1) * (image_only - nothing)
    elif sampling.reference_guidance_scale != 1:
        text_only = predict(True, False)
        result = text_only + sampling.reference_guidance_scale * (full - text_only)
    if sampling.guidance_rescale:
        dims = tuple(range(1, full.ndim))
        matched = result * (full.std(dim=dims, keepdim=True) / result.std(dim=dims, keepdim=True))
        result = sampling.guidance_rescale * matched + (1 - sampling.guidance_rescale) * result
    return result
