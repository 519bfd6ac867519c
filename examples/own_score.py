r"""Score the clips of a video with a score of your own, beside those of the platform.

    python examples/own_score.py VIDEO.mp4

A score is a class that maps the frames of one clip to one number. To use it in `jobs/ingest.py --scores` and in
`--keep`, move the class into platform/videogen/data/curation/scores/ and name it in `SCORES` there.
"""

import argparse
from typing import ClassVar

import numpy as np

from videogen.data.curation import AnalyseRequest, WindowSpec, analyse_request
from videogen.data.curation.scores import SCORES, ClipFrames, Score


class Colourfulness(Score):
    """Colourfulness by Hasler and Suesstrunk (2003): spread and offset of the opponent colours."""

    name = "colourfulness"
    unit = "0 and up"
    range: ClassVar[tuple[float, float]] = (0.0, 250.0)
    description = "spread and offset of opponent colours; 0 is grey, above 80 is vivid"

    def __call__(self, clip: ClipFrames) -> float:
        """Return the mean over the clip's frames."""
        red, green, blue = np.moveaxis(clip.frames.astype(np.float64), -1, 0)
        red_green, yellow_blue = red - green, (red + green) / 2 - blue
        spread = np.hypot(red_green.std(), yellow_blue.std())
        offset = np.hypot(red_green.mean(), yellow_blue.mean())
        return float(spread + 0.3 * offset)


def main() -> None:
    """Score every clip of the video and print one line a clip."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("video")
    arguments.add_argument("--num-frames", type=int, default=16, help="frames a clip")
    arguments.add_argument("--fps", type=float, default=8.0, help="frames a second of the clips")
    options = arguments.parse_args()

    score = Colourfulness()
    SCORES[score.name] = score
    names = (score.name, "motion", "sharpness")
    request = AnalyseRequest(options.video, WindowSpec(options.num_frames, options.fps), scores=names)
    header, _ = analyse_request(request.as_arguments())
    for clip in header["clips"]:
        scores = "  ".join(f"{name} {clip['scores'][name]:8.2f}" for name in names)
        print(f"{clip['start_s']:7.2f} s to {clip['end_s']:7.2f} s  {scores}")


if __name__ == "__main__":
    main()
