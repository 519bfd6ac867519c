r"""Put a stage of your own behind the cascade: frames in, frames out.

    python examples/own_stage.py --model runs/demo/model --output graded.mp4

This is the quick way, without training and without a model folder of its own. A stage that is trained, saved, served
and generated in batch is a folder under platform/videogen/stages/: CONTRIBUTING.md, "Add a stage".
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from videogen.data.video import write_mp4
from videogen.pipeline import VideoGenPipeline
from videogen.stages import Component, Sample, Stage, new_sample, run_stages


class GammaStage(Stage):
    """Brightens or darkens the finished frames."""

    consumes: ClassVar = ("frames",)
    produces: ClassVar = ("frames",)
    gamma: float = 1.0

    @classmethod
    def components(cls, name: str) -> dict[str, Component]:
        """Return no components: the stage has no weights."""
        return {}

    def run(self, samples: Sequence[Sample]) -> list[Sample]:
        """Return `frames`, uint8 (F, H, W, 3)."""
        table = (255 * np.linspace(0, 1, 256) ** self.gamma).round().astype(np.uint8)
        return [{"frames": table[sample["frames"]]} for sample in samples]


def main() -> None:
    """Generate one clip through the model's own stages and the new one."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", default="runs/demo/model", help="local folder or s3:// URI")
    arguments.add_argument("--prompt", default="a red circle moving left")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--gamma", type=float, default=0.6, help="below 1 brightens, above 1 darkens")
    arguments.add_argument("--output", type=Path, default=Path("graded.mp4"))
    options = arguments.parse_args()

    pipe = VideoGenPipeline.from_pretrained(options.model)
    gamma = GammaStage("gamma", {}, pipe.cascade)
    gamma.gamma = options.gamma
    [result] = run_stages([*pipe.stages(), gamma], [new_sample(options.prompt, options.seed)])
    options.output.write_bytes(write_mp4(result["frames"], fps=pipe.cascade.output_fps))
    print(f"{options.output}: {len(result['frames'])} frames, mean brightness {result['frames'].mean():.0f} of 255")


if __name__ == "__main__":
    main()
