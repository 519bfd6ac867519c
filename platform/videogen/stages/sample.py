"""Sample: the dict of numpy arrays, strings and numbers that passes through the stages."""

from typing import Any

import numpy as np

from videogen.errors import UserError

Sample = dict[str, Any]
_LONGEST_PROMPT = 4000


def new_sample(
    prompt: str, seed: int = 0, negative_prompt: str | None = None, reference_image: np.ndarray | None = None
) -> Sample:
    """Return a checked sample with the inputs of the first stages.

    Args:
        prompt: text to show.
        seed: 0 <= seed < 2**63.
        negative_prompt: text to avoid.
        reference_image: uint8 (H, W, 3) to start from instead of a drawn one.

    Raises:
        UserError: a value is empty or out of range.
    """
    if prompt is not None and not isinstance(prompt, str):
        raise UserError(f"The prompt {prompt!r} is not text: write a sentence.")
    if not prompt or not prompt.strip():
        raise UserError(f"The prompt {prompt!r} is empty: say what the video shows, e.g. 'a red circle moving left'.")
    if len(prompt) > _LONGEST_PROMPT:
        raise UserError(f"The prompt has {len(prompt)} characters, but at most {_LONGEST_PROMPT} are read: shorten it.")
    if not 0 <= int(seed) < 2**63:
        raise UserError(f"Seed {seed} is out of range: use a whole number from 0 to 2**63 - 1.")
    if reference_image is not None:
        image = np.asarray(reference_image)
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
            raise UserError(
                f"The reference image is {image.dtype} {image.shape}, but uint8 (height, width, 3) is needed: "
                f"convert it to RGB."
            )
    return {
        "prompt": prompt,
        "negative_prompt": negative_prompt or "",
        "seed": int(seed),
        "reference_image": reference_image,
    }
