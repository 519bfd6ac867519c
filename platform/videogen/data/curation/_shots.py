"""Streaming shot detection with PySceneDetect."""

import numpy as np

DELAY = 2
"""Number of frames after a cut that the detector needs before it reports the cut."""


class ShotDetector:
    """Detector of the hard cuts of one video.

    A frame starts a shot if its difference from the previous frame (hue, saturation and value) is three times the
    difference between the frames around it, which tells a cut from a fast pan. Fades and dissolves are not detected.

    Args:
        fps: frames per second of the video; of two cuts less than half a second apart, only the first counts.
    """

    def __init__(self, fps: float) -> None:
        from scenedetect.detectors import AdaptiveDetector

        self._fps = fps
        self._detector = AdaptiveDetector(
            adaptive_threshold=3.0, min_content_val=15.0, min_scene_len=0.5, window_width=DELAY
        )
        self._num_frames = 0

    def feed(self, frame: np.ndarray) -> int | None:
        """Process the next frame and return the first frame of a new shot, if one was detected.

        Args:
            frame: uint8 RGB (h, w, 3); small frames suffice, PySceneDetect itself uses a width of about 256 pixels.

        Returns:
            A frame number, at most `DELAY` before this frame; None for no cut.
        """
        from scenedetect import FrameTimecode

        found = self._detector.process_frame(FrameTimecode(self._num_frames, self._fps), frame[..., ::-1])
        self._num_frames += 1
        return found[0].frame_num if found else None
