r"""Generate one video in Python, without Ray.

    python examples/generate_video.py --model runs/demo/model --prompt "a red circle moving left" --output red.mp4

A model folder is a diffusers pipeline: `from_pretrained` loads it, `to` moves it to a device, a call returns frames.
"""

import argparse
from pathlib import Path

from videogen.data.video import write_mp4
from videogen.pipeline import VideoGenPipeline


def main() -> None:
    """Load a model, generate one clip, and write the mp4 file and the reference image that guided it."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", default="runs/demo/model", help="local folder or s3:// URI")
    arguments.add_argument("--prompt", default="a red circle moving left")
    arguments.add_argument("--seed", type=int, default=0, help="the same prompt and seed give the same video")
    arguments.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments.add_argument("--output", type=Path, default=Path("video.mp4"))
    options = arguments.parse_args()

    pipe = VideoGenPipeline.from_pretrained(options.model).to(options.device)
    result = pipe(options.prompt, seed=options.seed)
    frames = result.frames[0]  # uint8 (F, H, W, 3)
    options.output.write_bytes(write_mp4(frames, fps=result.fps))

    num_frames, height, width, _ = frames.shape
    print(f"{options.output}: {num_frames} frames of {width} x {height} pixels at {result.fps:g} frames/s")


if __name__ == "__main__":
    main()
