"""Shots: where a video cuts from one take to the next, found while its frames stream by (library: PySceneDetect)."""

import numpy as np

DELAY = 2
"""Frames that the detector must have seen after a cut before it reports it."""


class ShotDetector:
    """Finds the hard cuts of one video.

    A frame starts a shot if it differs from the one before it (hue, saturation and value) three times as much as the
    frames around it do among themselves: a fast pan differs all along, a cut once. Fades and dissolves are not found.

    Args:
        fps: frames a second of the video; of two cuts less than half a second apart, only the first counts.
    """

    def __init__(self, fps: float) -> None:
        from scenedetect.detectors import AdaptiveDetector

        self._fps = fps
        self._detector = AdaptiveDetector(
            adaptive_threshold=3.0, min_content_val=15.0, min_scene_len=0.5, window_width=DELAY
        )
        self._num_frames = 0

    def feed(self, frame: np.ndarray) -> int | None:
        """Take the next frame, and return the number of the frame that starts a new shot if that is now known.

        Args:
            frame: uint8 RGB (h, w, 3); small is enough, PySceneDetect itself uses about 256 pixels of width.

        Returns:
            The number, at most `DELAY` behind the frame given; None for no cut.
        """
        from scenedetect import FrameTimecode

        found = self._detector.process_frame(FrameTimecode(self._num_frames, self._fps), frame[..., ::-1])
        self._num_frames += 1
        return found[0].frame_num if found else None
